use super::*;
use crate::port::memory::buffer::BufferMut;
use crate::port::wire::attachment::{Attachment, Body};
use crate::port::wire::decode::decode_result;
use crate::port::wire::value::call_body;

/// An array as it comes from Python.
fn received<T: Element>(bytes: &[u8], dtype: &str, shape: &str) -> Result<Array<T>, String> {
    let json = format!(r#"{{"\u0000":[0,"{dtype}",{shape}]}}"#);
    let attachments = vec![Attachment::Inline(Bytes::copy_from_slice(bytes))];
    let body = Body::received(json.into(), attachments)?;
    decode_result(&body).map_err(|error| error.to_string())
}

#[test]
fn shapes_must_fit() {
    assert_eq!(Array::from_vec(vec![1_u16; 6], &[2, 3]).unwrap().shape(), [2, 3]);
    assert_eq!(Array::from_vec(vec![1.5_f64], &[]).unwrap().as_slice(), [1.5]);
    assert_eq!(Array::<i32>::from_vec(vec![], &[3, 0]).unwrap().len(), 0);
    let error = Array::from_vec(vec![1_u16; 6], &[4]).unwrap_err();
    assert_eq!(error.to_string(), "12 bytes are no array of shape [4] with elements of 2 bytes");
    assert!(Array::from_vec(vec![1_u8], &[usize::MAX, usize::MAX]).is_err());
    assert!(Array::<u8>::from_vec(vec![], &[usize::MAX, 0]).is_err(), "nobody's index goes that far");
    assert!(received::<u8>(&[], "|u1", "[9223372036854775807,2,0]").is_err());
    assert!(Array::<u32>::from_buffer(vec![0; 5], &[1]).is_err());
    assert_eq!(Array::from(vec![1_i8, 2]).shape(), [2]);
}

#[test]
fn memory_is_taken_without_a_copy_when_it_is_aligned() {
    let numbers = vec![1_u64, 2, 3];
    let at = numbers.as_ptr();
    assert_eq!(Array::from_vec(numbers, &[3]).unwrap().as_slice().as_ptr(), at);

    let mut buffer = BufferMut::new(24);
    bytemuck::cast_slice_mut::<u8, f64>(&mut buffer)[1] = 2.5;
    let buffer = buffer.freeze();
    let array = Array::<f64>::from_buffer(buffer.clone(), &[3]).unwrap();
    assert_eq!(array.as_slice(), [0.0, 2.5, 0.0]);
    assert_eq!(array.clone().into_buffer().as_ptr(), buffer.as_ptr());

    let odd = buffer.to_bytes().slice(1..17);
    assert_eq!(Array::<f64>::from_buffer(odd, &[2]).unwrap().len(), 2);
}

#[test]
fn arguments_say_what_they_are() {
    let array = Array::from_vec(vec![1.0_f32, 2.0], &[1, 2]).unwrap();
    let empty = Array::<u8>::from_vec(vec![], &[0]).unwrap();
    let body = call_body("f", &(&array, [&empty]), None::<&()>).unwrap();
    assert_eq!(body.json, r#"["f",[{"\u0000":[0,"<f4",[1,2]]},[{"\u0000":[1,"|u1",[0]]}]],null]"#);
    assert_eq!(body.attachments[0].buffer().as_ptr(), array.as_slice().as_ptr().cast());
}

#[test]
fn more_axes_than_python_takes_are_an_error_here() {
    let of_axes = |axes| Array::from_vec(vec![1.0_f32], &vec![1; axes]).unwrap();
    call_body("f", &(of_axes(32),), None::<&()>).unwrap();
    let error = call_body("f", &(of_axes(33),), None::<&()>).unwrap_err();
    assert!(error.to_string().contains("33 axes: Python takes 32 at most"), "{error}");
}

#[test]
fn arrays_come_in_either_byte_order_and_any_alignment() {
    let array = received::<i16>(&[1, 0, 0, 2], "<i2", "[2]").unwrap();
    assert_eq!(array.as_slice(), [1, 512]);
    assert_eq!(received::<i16>(&[1, 0, 0, 2], ">i2", "[2,1]").unwrap().as_slice(), [256, 2]);
    assert_eq!(received::<f64>(&2.5_f64.to_be_bytes(), ">f8", "[]").unwrap().as_slice(), [2.5]);
    assert_eq!(received::<u8>(&[0, 1], "|b1", "[2]").unwrap().as_slice(), [0, 1]);
    assert_eq!(received::<f32>(&[], "<f4", "[0,3]").unwrap().shape(), [0, 3]);
}

#[test]
fn what_is_another_array_is_refused_with_what_to_do() {
    let error = received::<f32>(&[0; 8], "<f8", "[1]").unwrap_err();
    let text = "result: is an array of <f8, not of <f4: convert it there, with .astype(\"f4\"), or ask for another type here";
    assert_eq!(error, text);
    let error = received::<f32>(&[0; 5], "<f4", "[1]").unwrap_err();
    assert_eq!(error, "result: 5 bytes are no array of shape [1] with elements of 4 bytes");
    assert!(received::<f32>(&[0; 4], "<f4", "[-1]").is_err());
    let error = serde_json::from_str::<Array<f32>>("[1.0]").unwrap_err().to_string();
    assert!(error.contains("expected an array of <f4, such as numpy's"), "{error}");
}

#[test]
#[cfg(feature = "ndarray")]
fn ndarrays_of_any_layout_become_c_order() {
    let matrix = ndarray::array![[1, 2, 3], [4, 5, 6]];
    let array = Array::from_ndarray(matrix.t());
    assert_eq!((array.shape(), array.as_slice()), (&[3, 2][..], &[1, 4, 2, 5, 3, 6][..]));
    assert_eq!(array.view(), matrix.t().into_dyn());
}
