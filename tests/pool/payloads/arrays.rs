//! Arrays of numpy and of the standard library.

use bytes::Bytes;
use hatchery::{Array, BufferMut, CallError, Element};

use super::pool_of;
use super::python_with_extras;
use crate::support::alone_test;

const SOURCE: &str = r#"
import array

def floats(): return array.array('f', [1, 2, 3])
def grid(): return memoryview(bytes(range(6))).cast('B', (2, 3))
def what(value): return [type(value).__name__, value.format, list(value.shape), value.readonly, value.tolist()]
"#;

const NUMPY: &str = r#"
import numpy as np

def what(value): return [type(value).__name__, value.dtype.str, list(value.shape), bool(value.flags.writeable), value.tolist()]
def evaluate(text): return eval(text)
def echo(value): return value
def total(value): return float(value.sum())
kept = []
def keep(value): kept.append(value[1:3])
def look(): return kept[0] * 1
"#;

/// Type, format, shape, whether it is read-only, elements.
type What<T> = (String, String, Vec<usize>, bool, T);

alone_test! {
    async fn arrays_work_without_numpy() {
        let pool = pool_of(SOURCE).env("PYTHONNOUSERSITE", "1").start().await.expect("the pool starts");
        let floats: Array<f32> = pool.call("floats", ()).await.expect("an array");
        assert_eq!((floats.shape(), floats.as_slice()), (&[3][..], &[1.0, 2.0, 3.0][..]));
        let grid: Array<u8> = pool.call("grid", ()).await.expect("an array");
        assert_eq!((grid.shape(), grid.as_slice()), (&[2, 3][..], &[0, 1, 2, 3, 4, 5][..]));
        if python_with_extras().is_none() {
            // This Python probably has no numpy.
            let array = Array::from_vec(vec![1_i16, -2], &[1, 2]).expect("it fits");
            let what: Result<What<Vec<Vec<i16>>>, _> = pool.call("what", (array,)).await;
            if let Ok(what) = what {
                assert_eq!(what, ("memoryview".into(), "h".into(), vec![1, 2], true, vec![vec![1, -2]]));
            }
        }
        let error = pool.call::<_, Bytes>("floats", ()).await.expect_err("more than bytes");
        assert!(matches!(&error, CallError::Decode { message, .. } if message.contains("ask for a hatchery::Array")), "{error:?}");
        pool.shutdown().await;
    }
}

async fn assert_array<T: Element + PartialEq + std::fmt::Debug>(
    pool: &hatchery::Pool,
    expression: &str,
    shape: &[usize],
    numbers: &[T],
) {
    let array: Array<T> = pool.call("evaluate", (expression,)).await.expect(expression);
    assert_eq!((array.shape(), array.as_slice()), (shape, numbers), "{expression}");
}

alone_test! {
    async fn numpy_arrays_of_all_layouts_arrive() {
        let Some(python) = python_with_extras() else { return };
        let pool = pool_of(NUMPY).python(python).start().await.expect("the pool starts");
        assert_array(&pool, "np.arange(6, dtype='i4').reshape(2, 3)", &[2, 3], &[0_i32, 1, 2, 3, 4, 5]).await;
        assert_array(&pool, "np.asfortranarray(np.arange(6, dtype='i4').reshape(2, 3))", &[2, 3], &[0_i32, 1, 2, 3, 4, 5]).await;
        assert_array(&pool, "np.arange(6, dtype='i4').reshape(2, 3).T[::-1]", &[3, 2], &[2_i32, 5, 1, 4, 0, 3]).await;
        assert_array(&pool, "np.arange(6, dtype='>i4')[::2]", &[3], &[0_i32, 2, 4]).await;
        assert_array(&pool, "np.arange(3, dtype='>f8')", &[3], &[0.0_f64, 1.0, 2.0]).await;
        assert_array(&pool, "np.array(2.5)", &[], &[2.5_f64]).await;
        assert_array(&pool, "np.zeros((0, 3), dtype='f4')", &[0, 3], &[] as &[f32]).await;
        assert_array(&pool, "np.array([True, False])", &[2], &[1_u8, 0]).await;
        assert_array(&pool, "np.full((2, 1), 255, dtype='u1')", &[2, 1], &[255_u8, 255]).await;
        assert_array(&pool, "np.array([-1], dtype='i1')", &[1], &[-1_i8]).await;
        assert_array(&pool, "np.array([2**63], dtype='u8')", &[1], &[1_u64 << 63]).await;
        let large: Array<f64> = pool.call("evaluate", ("np.arange(1 << 18, dtype='>f8')[::2]",)).await.expect("it comes");
        assert!(large.len() == 1 << 17 && large.as_slice()[1000] == 2000.0);
        for (expression, says) in [
            ("np.array([None, 'a'])", "dtype object: convert it (for example with .tolist(), or .astype(float))"),
            ("np.zeros(2, dtype=[('x', 'i4')])", "send its fields one by one"),
            ("[np.float32(1)]", "numpy.float32; JSON has no such type: convert it (for example with .item())"),
        ] {
            let error = pool.call::<_, Array<f64>>("evaluate", (expression,)).await.expect_err(expression);
            assert!(matches!(&error, CallError::Encode { message, .. } if message.contains(says)), "{error:?}");
        }
        let error = pool.call::<_, Array<f32>>("evaluate", ("np.zeros(2)",)).await.expect_err("f8");
        assert!(matches!(&error, CallError::Decode { message, .. } if message.contains("is an array of <f8, not of <f4")), "{error:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn array_arguments_arrive_as_numpy_and_can_be_kept() {
        let Some(python) = python_with_extras() else { return };
        let pool = pool_of(NUMPY).python(python).start().await.expect("the pool starts");
        let array = Array::from_vec(vec![1.5_f32, 2.5], &[2, 1]).expect("it fits");
        let what: What<Vec<Vec<f32>>> = pool.call("what", (&array,)).await.expect("the call succeeds");
        assert_eq!(what, ("ndarray".into(), "<f4".into(), vec![2, 1], false, vec![vec![1.5], vec![2.5]]));
        assert_eq!(pool.call::<_, Array<f32>>("echo", (&array,)).await.expect("the echo succeeds"), array);

        let mut buffer = BufferMut::new(16 << 20);
        buffer[16] = 0;
        for (at, number) in buffer.chunks_exact_mut(8).enumerate() {
            number.copy_from_slice(&(at as f64).to_ne_bytes());
        }
        let array = Array::<f64>::from_buffer(buffer.freeze(), &[1 << 11, 1 << 10]).expect("it fits");
        let total: f64 = pool.call("total", (&array,)).await.expect("it adds up");
        assert_eq!(total, (0..1 << 21).map(f64::from).sum::<f64>());
        pool.call::<_, ()>("keep", (&array,)).await.expect("it keeps a view");
        let back: Array<f64> = pool.call("echo", (&array,)).await.expect("the echo succeeds");
        assert!(back == array);
        let kept: Array<f64> = pool.call("look", ()).await.expect("it is still there");
        assert_eq!((kept.shape(), kept.as_slice()[0]), (&[2, 1 << 10][..], 1024.0));
        pool.shutdown().await;
    }
}
