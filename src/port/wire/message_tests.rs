use serde_json::Value;

use super::*;
use crate::port::wire::frame::PROTOCOL;
use crate::port::wire::golden;
use crate::port::wire::value::call_body;

#[test]
fn golden_messages_read_and_write_the_same() {
    for golden in golden::manifest().frames {
        let Some(text) = &golden.body else { continue };
        let said: Value = serde_json::from_str(text).unwrap();
        let frame = golden.frame();
        let again = match frame.kind {
            Kind::Hello => serde_json::to_value(serde_json::from_str::<Hello>(text).unwrap()).unwrap(),
            Kind::Ready => serde_json::to_value(serde_json::from_str::<Ready>(text).unwrap()).unwrap(),
            Kind::Error => serde_json::to_value(serde_json::from_str::<WorkerError>(text).unwrap()).unwrap(),
            _ => continue,
        };
        assert_eq!(again, said, "{}", golden.name);
    }
}

#[test]
fn the_host_writes_the_golden_frames() {
    let hello = Hello {
        protocol: PROTOCOL,
        worker: "textstats-1".to_owned(),
        module: "textstats".to_owned(),
        path: vec![Path::new("/srv/app").into(), Path::new("/srv/naïve").into()],
        functions: Some(vec!["count_words".to_owned()]),
        max_frame_bytes: 67_108_864,
        cancel_signal: 44,
        stack_signal: 45,
        in_flight: 1,
        threads: 0,
        codec: codec::Codec::Auto,
        log_level: 20,
        host_functions: vec!["price".to_owned()],
        template: None,
    };
    assert_eq!(hello.to_frame(), golden::frame("hello"));
    let body = call_body::<_, ()>("count_words", &("to be or not to be",), None).unwrap();
    assert_eq!(call_frame(1, 30_000, body), golden::frame("call_positional"));
    assert_eq!(shutdown_frame(), golden::frame("shutdown"));
}

#[test]
fn replies_are_told_apart() {
    let ready = Reply::from_frame(golden::frame("ready")).unwrap();
    assert!(
        matches!(ready, Reply::Ready(ready) if ready.pid == 4711 && ready.functions[1].signature.is_none())
    );
    let result = Reply::from_frame(golden::frame("result_number")).unwrap();
    assert_eq!(result, Reply::Result { call_id: 1, body: Bytes::from_static(b"6").into() });
    let error = Reply::from_frame(golden::frame("error_frame_too_large")).unwrap();
    let too_large = WorkerError::FrameTooLarge { size: 70_000_000, limit: 67_108_864 };
    assert_eq!(error, Reply::Error { call_id: 5, error: too_large });
}

#[test]
fn what_no_worker_sends_is_refused() {
    for name in ["hello", "call_positional", "shutdown"] {
        let answer = Reply::from_frame(golden::frame(name));
        assert!(matches!(answer, Err(FrameError::UnexpectedKind(_))), "{name}: {answer:?}");
    }
    let answer = Reply::from_frame(Frame { kind: Kind::Ready, ..golden::frame("result_attachments") });
    assert!(matches!(answer, Err(FrameError::UnexpectedAttachments(Kind::Ready))), "{answer:?}");
    for (kind, body) in [
        (Kind::Ready, "{}"),
        (Kind::Error, "[1"),
        (Kind::Error, r#"{"kind":"another"}"#),
        (Kind::Error, "\"\\ud800\""),
        (Kind::Ready, ""),
    ] {
        let answer = Reply::from_frame(Frame::new(kind, 0, Codec::Json, body.into()));
        assert!(matches!(answer, Err(FrameError::Body { .. })), "{body}: {answer:?}");
    }
    let answer = Reply::from_frame(Frame::new(Kind::Result, 1, Codec::None, Bytes::new()));
    assert!(matches!(answer, Err(FrameError::Body { .. })), "{answer:?}");
}

#[test]
fn protocol_error_is_called_so_once() {
    let error = || WorkerError::Protocol { message: "no frame".into() };
    assert_eq!(error().into_detail(), "no frame");
    let error = error().into_start_error(String::new());
    assert_eq!(error.to_string(), "protocol error during the start: no frame");
}

#[test]
fn log_frame_beyond_1_mib_is_not_read_and_says_its_size() {
    let frame = |size: usize| {
        let body = format!(r#"{{"logger": "a", "message": "{}"}}"#, "m".repeat(size));
        Frame { number: 30, ..Frame::new(Kind::Log, 0, Codec::Json, body.into()) }
    };
    let Ok(Reply::Log { level: 30, record }) = Reply::from_frame(frame(LOG_FRAME_BYTES - 100)) else {
        panic!()
    };
    assert_eq!((&*record.logger, record.message.len()), ("a", LOG_FRAME_BYTES - 100));
    let Ok(Reply::Log { level: 30, record }) = Reply::from_frame(frame(LOG_FRAME_BYTES)) else { panic!() };
    assert_eq!(
        record.message,
        format!("a log record of {} bytes is too large to be read", LOG_FRAME_BYTES + 30)
    );
}
