#![allow(unsafe_code, missing_docs)]
use hatchery::Pool;
use std::time::*;
#[actix::main]
async fn main() {
    env_logger::init();
    let p = Pool::builder().module("m").path("/tmp/zy").size(3).zygote();
    let t = Instant::now();
    let pool = p.start().await.unwrap();
    println!("start {:?}", t.elapsed());
    let v: serde_json::Value = pool.call("info", ()).await.unwrap();
    println!("{v:#}");
    println!("{:#?}", pool.status().await.unwrap().zygote);
    println!("{:#?}", pool.status().await.unwrap().workers[0]);
    let t = Instant::now();
    let r = pool.call::<_, u32>("die", (7,)).await;
    println!("{r:?} {:?}", t.elapsed());
    for i in 0..3 {
        let st = pool.status().await.unwrap();
        for w in &st.workers {
            println!("{:?} {:?} {:?}", w.pid, w.forked, w.last_exit);
        }
        let victim = st.workers.iter().find(|w| w.pid.is_some()).unwrap().pid.unwrap();
        unsafe {
            libc::kill(victim as i32, 9);
        }
        let t = Instant::now();
        let v: u32 = pool.call("pid", ()).await.unwrap();
        println!("after kill {v} {:?} {i}", t.elapsed());
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
    let z = pool.status().await.unwrap().zygote.unwrap().pid.unwrap();
    unsafe {
        libc::kill(z as i32, 9);
    }
    let v: u32 = pool.call("pid", ()).await.unwrap();
    println!("{v}");
    actix_rt::time::sleep(Duration::from_millis(300)).await;
    println!("{:#?}", pool.status().await.unwrap().zygote);
    let t = Instant::now();
    pool.shutdown().await;
    println!("shutdown {:?}", t.elapsed());
}
