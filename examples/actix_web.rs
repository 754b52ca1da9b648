//! An actix-web service whose handlers call Python from all its threads.
//!
//! ```sh
//! cargo run --release --example actix_web            # listens on 127.0.0.1:8080
//! curl 'http://127.0.0.1:8080/words?text=to+be+or+not+to+be'
//! curl --data 'To be, or not to be. That is the question.' http://127.0.0.1:8080/readability
//! curl --data '' http://127.0.0.1:8080/readability   # Python raises: 500 with type and message
//! curl 'http://127.0.0.1:8080/think?seconds=2'
//! curl -N 'http://127.0.0.1:8080/generate?prompt=to+be&tokens=100'   # words as they come; Ctrl-C cancels them
//! curl http://127.0.0.1:8080/health
//! ```
//!
//! `ADDRESS`, `WORKERS` and `QUEUE` in the environment change where it listens, how many Python workers it has and how
//! many requests may wait for one. A full queue answers 503 with `Retry-After`. A client that leaves cancels what it
//! has asked for, in Python too. On SIGTERM the requests in progress finish, then the pool ends, then the process.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, TryIntoHeaderValue};
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpResponse, HttpServer, ResponseError, rt, web};
use futures_util::{StreamExt, stream};
use hatchery::{CallError, Direction, Pool};
use serde::Deserialize;
use serde_json::{Value, json};

/// A failed call as an HTTP answer.
#[derive(Debug)]
struct Failure(CallError);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self(error)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        match &self.0 {
            CallError::Overloaded { .. } | CallError::Unavailable { .. } | CallError::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            CallError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            // The client's fault only where the arguments are what it sent.
            error => match (error, error.direction()) {
                (CallError::FrameTooLarge { .. }, Some(Direction::Arguments)) => {
                    StatusCode::PAYLOAD_TOO_LARGE
                }
                (_, Some(Direction::Arguments)) => StatusCode::BAD_REQUEST,
                (_, Some(_)) => StatusCode::BAD_GATEWAY,
                (_, None) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match &self.0 {
            CallError::Overloaded { retry_after, .. } => {
                if let Ok(seconds) = retry_after.as_secs_f64().ceil().to_string().try_into_value() {
                    response.insert_header((RETRY_AFTER, seconds));
                }
                response.json(json!({"type": "Overloaded", "message": self.to_string()}))
            }
            // The traceback is for the log, not for the client.
            error @ CallError::Python { type_name, message, .. } => {
                log::error!("{error:#}");
                response.json(json!({"type": type_name, "message": message}))
            }
            error => {
                log::warn!("{error:#}");
                response.json(json!({"type": "CallError", "message": error.to_string()}))
            }
        }
    }
}

#[derive(Deserialize)]
struct Words {
    text: String,
}

async fn words(pool: web::Data<Pool>, query: web::Query<Words>) -> Result<HttpResponse, Failure> {
    let count: u64 = pool.call("count_words", (&query.text,)).await?;
    Ok(HttpResponse::Ok().json(json!({ "words": count })))
}

/// The text is the body.
async fn readability(pool: web::Data<Pool>, text: String) -> Result<HttpResponse, Failure> {
    let scores: Value = pool.call("readability", (&text,)).await?;
    Ok(HttpResponse::Ok().json(scores))
}

#[derive(Deserialize)]
struct Think {
    seconds: f64,
}

/// Stands for whatever takes long.
async fn think(pool: web::Data<Pool>, query: web::Query<Think>) -> Result<HttpResponse, Failure> {
    let thought: String = pool.call("think", (query.seconds,)).await?;
    Ok(HttpResponse::Ok().json(json!({ "thought": thought })))
}

#[derive(Deserialize)]
struct Generate {
    prompt: String,
    tokens: u64,
}

/// Server-sent events: each word as it comes, then `end` or `error`.
///
/// What goes wrong before a worker has begun (a full queue) is an answer like any other. When the client leaves,
/// actix-web drops the body, and with it the stream: the generator is cancelled.
async fn generate(pool: web::Data<Pool>, query: web::Query<Generate>) -> Result<HttpResponse, Failure> {
    let Generate { prompt, tokens } = query.into_inner();
    let words = pool
        .request("generate")
        .args((prompt, tokens))
        .timeout(Duration::from_secs(300)) // for all of it
        .stream::<String>()
        .await?;
    let events = stream::unfold(Some(words), |words| async {
        let mut words = words?;
        Some(match words.next().await {
            Some(Ok(word)) => (format!("data: {}\n\n", json!(word)), Some(words)),
            Some(Err(error)) => {
                log::error!("{error:#}");
                // The status has been sent long ago.
                (format!("event: error\ndata: {}\n\n", json!(error.to_string().lines().next())), None)
            }
            None => ("event: end\ndata\n\n".to_owned(), None),
        })
    });
    let body = events.map(|event| Ok::<_, Infallible>(web::Bytes::from(event)));
    Ok(HttpResponse::Ok().content_type("text/event-stream").streaming(body))
}

/// For a load balancer: can this service serve?
async fn health(pool: web::Data<Pool>) -> Result<HttpResponse, Failure> {
    let status = pool.status().await?;
    let code = if status.ready > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(HttpResponse::build(code).json(status))
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    match std::env::var(name) {
        Ok(value) => Ok(value.parse().map_err(|error| format!("{name}={value}: {error}"))?),
        Err(_) => Ok(default),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    // A port that is in use is found before Python starts.
    let address = setting("ADDRESS", "127.0.0.1:8080".to_string())?;
    let listener =
        TcpListener::bind(&address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let pool = Pool::builder()
        .module("service")
        .path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python"))
        .size(setting("WORKERS", 2)?)
        .queue_bound(setting("QUEUE", 100)?)
        .start()
        .await?;
    let shared = web::Data::new(pool.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .route("/words", web::get().to(words))
            .route("/readability", web::post().to(readability))
            .route("/think", web::get().to(think))
            .route("/generate", web::get().to(generate))
            .route("/health", web::get().to(health))
    })
    .listen(listener)?
    // Else a client that leaves is noticed when something is written to it, and not while its handler waits for Python:
    // the call would go on for nobody. With this, the handler's future is dropped, and that cancels the call. The price: a
    // client that closes its own direction and still reads (`nc -N`) gets no answer.
    .h1_allow_half_closed(false)
    // On a signal actix-web's own handling stops the whole actix System, and the pool's thread with it, before
    // there is a chance to end the pool in order.
    .disable_signals();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    let server = server.run();
    let stopper = server.handle();
    rt::spawn(async move {
        let mut asked = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        asked().await;
        rt::spawn(stopper.stop(true));
        // A second signal ends the service at once; the kernel ends the workers with it.
        asked().await;
        eprintln!("ended without waiting for the requests in progress");
        std::process::exit(1);
    });
    // Returns when the requests in progress have been answered.
    server.await?;
    pool.shutdown().await;
    println!("ended");
    Ok(())
}
