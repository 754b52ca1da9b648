//! A tree of plain actors in three levels, to play with.
//!
//! ```sh
//! cargo run --example supervision_tree
//! ```
//!
//! Commands on standard input, one per line (`help` prints them): `tree`, `crash shop/cart`, `stop shop/cart`,
//! `terminate shop/cart`, `restart shop/cart`, `add shop/wishlist`, `json`, `dot`, `mermaid`, `quit`. What the
//! supervisors do is printed as it happens.

use std::{convert::Infallible, io::BufRead, time::Duration};

use actix::prelude::*;
use hatchery::supervisor::{
    ChildError, ChildSpec, ReportEvent, Restart, Strategy, Supervisor, SupervisorRef,
};

/// An actor that does nothing, and ends when told to.
struct Service;

impl Actor for Service {
    type Context = Context<Self>;
}

#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
enum End {
    Crash,
    Stop,
}

impl Handler<End> for Service {
    type Result = ();

    fn handle(&mut self, end: End, ctx: &mut Self::Context) {
        match end {
            End::Crash => panic!("told to crash"),
            End::Stop => ctx.stop(),
        }
    }
}

fn service(id: &str) -> ChildSpec<Service> {
    ChildSpec::new(id, || async { Ok::<_, Infallible>(Service) })
}

const HELP: &str = "\
tree                print the tree
crash PATH          make an actor panic
stop PATH           make an actor stop by itself
terminate PATH      have its supervisor stop a child
restart PATH        have its supervisor start it again
add PATH            add a child, for example shop/wishlist
json | dot | mermaid  export the tree
quit                stop everything, in order";

async fn carry_out(app: &impl AsRef<SupervisorRef>, command: &str, path: &str) -> Result<String, String> {
    let app = app.as_ref();
    let text = |error: ChildError| error.to_string();
    let end = |end: End| {
        let child = app.child::<Service>(path).map_err(|error| error.to_string())?;
        child.do_send(end).map_err(|error| error.to_string())?;
        Ok(String::new())
    };
    match command {
        "" => Ok(String::new()),
        "tree" => app.tree().await.map(|tree| tree.to_string()).map_err(text),
        "json" => app.tree().await.map(|tree| tree.to_json()).map_err(text),
        "dot" => app.tree().await.map(|tree| tree.to_dot()).map_err(text),
        "mermaid" => app.tree().await.map(|tree| tree.to_mermaid()).map_err(text),
        "crash" => end(End::Crash),
        "stop" => end(End::Stop),
        "terminate" => app.terminate_child(path).await.map(|()| String::new()).map_err(text),
        "restart" => app.restart_child(path).await.map(|_| String::new()).map_err(text),
        "add" => {
            let (supervisor, id) = match path.rsplit_once('/') {
                None => (app.clone(), path),
                Some((above, id)) => (app.supervisor(above).map_err(|error| error.to_string())?, id),
            };
            supervisor.start_child(service(id)).await.map(|_| String::new()).map_err(text)
        }
        _ => Ok(HELP.to_owned()),
    }
}

/// Reads standard input on a thread of its own, since that blocks.
fn lines() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::panic::set_hook(Box::new(|_| {}));
    let payments = Supervisor::builder("payments")
        .strategy(Strategy::OneForAll)
        .child_spec(service("gateway"))
        .child_spec(service("ledger"));
    let shop = Supervisor::builder("shop")
        .strategy(Strategy::RestForOne)
        .intensity(3, Duration::from_secs(5))
        .child_spec(service("catalogue"))
        .child_spec(service("cart"))
        .supervisor("payments", payments);
    let app = Supervisor::builder("app")
        .intensity(3, Duration::from_secs(5))
        .child_spec(service("database"))
        .supervisor("shop", shop)
        .child_spec(service("report").restart(Restart::Transient))
        .start()
        .await?;

    let mut reports = app.subscribe();
    let mut lines = lines();
    println!("{}\n\n{HELP}", app.tree().await?);
    loop {
        tokio::select! {
            biased;
            report = reports.recv() => match report {
                Some(report) => {
                    println!("  * {report}");
                    if report.supervisor.as_ref() == app.path()
                        && matches!(report.event, ReportEvent::Shutdown { .. })
                    {
                        println!("the root has given up: {}", app.ended().await);
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            line = lines.recv() => {
                let line = line.unwrap_or_else(|| "quit".to_owned());
                let (command, path) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
                if command == "quit" {
                    break;
                }
                match carry_out(&app, command, path.trim()).await {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => println!("{text}"),
                    Err(error) => println!("error: {error:#}"),
                }
                // Let the supervisors act before the next line is read, so that piped commands read well.
                actix_rt::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    app.stop().await;
    while let Some(report) = reports.recv().await {
        println!("  * {report}");
    }
    Ok(())
}
