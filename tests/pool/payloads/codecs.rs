//! The JSON codecs of the workers.

use hatchery::{CallError, Codec, PoolStartError, StartPhase, WorkerStartError};
use serde_json::{Value, json};

use super::{pool_of, python_with_extras};
use crate::support::{alone_test, python_module, scratch};

const SOURCE: &str = r#"
import enum, struct, sys
def echo(value): return value
def bits(values): return [struct.unpack('<Q', struct.pack('<d', value))[0] for value in values]
def loaded(): return [name for name in ('orjson', 'msgspec') if name in sys.modules]
def colours(): return [enum.Enum('Colour', 'RED').RED] * 10_000
def deep(depth):
    value = 'x' * 20_000
    for _ in range(depth):
        value = [value]
    return value
"#;

alone_test! {
    async fn codecs_give_the_same_values_and_errors() {
        let Some(python) = python_with_extras() else { return };
        for (codec, loaded) in [
            (Codec::Json, vec![]),
            (Codec::Auto, vec!["orjson"]),
            (Codec::Orjson, vec!["orjson"]),
            (Codec::Msgspec, vec!["msgspec"]),
        ] {
            let pool = pool_of(SOURCE).python(&python).codec(codec).start().await.expect("the pool starts");
            let row = json!({"name": "\u{0}\u{1f44b}\"", "n": [u64::MAX, i64::MIN, 1.5, null, true], "": {}});
            let rows = Value::from(vec![row; 1000]);
            for _ in 0..2 {
                assert_eq!(pool.call::<_, Value>("echo", (&rows,)).await.expect("the echo succeeds"), rows, "{codec:?}");
            }
            let error = pool.call::<_, Value>("colours", ()).await.expect_err("enums do not travel");
            let CallError::Encode { message, .. } = error else { panic!("{codec:?}: {error:?}") };
            assert!(message.starts_with("result[0] is a"), "{codec:?}: {message}");
            pool.call::<_, Value>("deep", (120,)).await.expect("that deep");
            let error = pool.call::<_, Value>("deep", (121,)).await.expect_err("too deep");
            assert!(matches!(&error, CallError::Encode { message, .. } if message.contains("120 levels")), "{error:?}");
            assert_eq!(pool.call::<_, Vec<String>>("loaded", ()).await.expect("the call succeeds"), loaded, "{codec:?}");
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn codecs_keep_numbers_to_the_last_bit() {
        let Some(python) = python_with_extras() else { return };
        let seed = 20;
        let mut random = fastrand::Rng::with_seed(seed);
        let ordinary = |random: &mut fastrand::Rng| f64::from(random.i32(..)) / f64::from(random.i32(1..100_000));
        let numbers: Vec<f64> = (0..10_000)
            .map(|i| if i % 2 == 0 { f64::from_bits(random.u64(..)) } else { ordinary(&mut random) })
            .filter(|number| number.is_finite())
            .chain([0.0, -0.0, 5e-324, -f64::MIN_POSITIVE, f64::MAX, 1.917_759_016_941_51e-309, 0.1 + 0.2])
            .collect();
        let bits: Vec<u64> = numbers.iter().map(|number| number.to_bits()).collect();
        for codec in [Codec::Json, Codec::Orjson, Codec::Msgspec] {
            let pool = pool_of(SOURCE).python(&python).codec(codec).start().await.expect("the pool starts");
            let there: Vec<u64> = pool.call("bits", (&numbers,)).await.expect("the call succeeds");
            assert!(there == bits, "{codec:?}, seed {seed}: Python reads other numbers");
            let back: Vec<f64> = pool.call("echo", (&numbers,)).await.expect("they come back");
            assert!(back.iter().map(|number| number.to_bits()).eq(bits.iter().copied()), "{codec:?}, seed {seed}");
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn missing_codec_fails_the_start_and_is_named() {
        python_module(&scratch(), "orjson", "raise ImportError('not today')");
        python_module(&scratch(), "msgspec", "raise ImportError('not today')");
        for (codec, name) in [(Codec::Orjson, "orjson"), (Codec::Msgspec, "msgspec")] {
            let error = pool_of(SOURCE).codec(codec).start().await.expect_err("it is not there");
            let PoolStartError::Worker(failure) = &error else { panic!("{error:?}") };
            let WorkerStartError::Python { phase: StartPhase::Setup, message, .. } = &*failure.cause else {
                panic!("{error:?}")
            };
            assert!(message.contains(&format!("pip install {name}")), "{message}");
        }
        let pool = pool_of(SOURCE).codec(Codec::Auto).start().await.expect("it needs none");
        let large = "x".repeat(100_000);
        assert_eq!(pool.call::<_, String>("echo", (&large,)).await.expect("the echo succeeds"), large);
        pool.shutdown().await;
    }
}
