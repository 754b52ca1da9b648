//! Records of Python's `logging` reach the `log` crate.

use log::Level;

use crate::support::{LONG_TIMEOUT, alone_test, logged, pool_of, wait_until};

const SOURCE: &str = r#"
import logging

import hatchery

log = logging.getLogger("shop.till")


def tell(text):
    log.debug("not shown: %s", text)
    log.info("sold %s", text)
    try:
        raise ValueError("no change")
    except ValueError:
        log.exception("refused")
    return [hatchery.request_id(), hatchery.traceparent()]
"#;

alone_test! {
    async fn python_log_records_carry_level_logger_and_request() {
        let pool = pool_of(SOURCE).size(1).start().await.expect("the pool starts");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = pool.request("tell").args(("a pen",)).request_id("r-7").traceparent(trace);
        let told: (Option<String>, Option<String>) = request.send().await.expect("it tells");
        assert_eq!(told, (Some("r-7".into()), Some(trace.into())));
        let target = "hatchery::python::subject-1";
        wait_until("both are there", LONG_TIMEOUT, || {
            logged(Level::Info, target).iter().any(|line| line == "shop.till: sold a pen [request r-7]")
                && logged(Level::Error, target).iter().any(|line| {
                    line.starts_with("shop.till: refused") && line.contains("ValueError: no change")
                })
        })
        .await;
        let told: (Option<String>, Option<String>) = pool.call("tell", ("a book",)).await.expect("the call succeeds");
        assert_eq!(told, (None, None));
        pool.shutdown().await;
    }
}
