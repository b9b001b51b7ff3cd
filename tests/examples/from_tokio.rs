//! The client from a program on tokio: many requests at once, over one connection per node.
//!
//! ```text
//! cargo run --example from_tokio -- 127.0.0.1:PORT
//! ```

use std::error::Error;

use starling::client::{Client, ConnectOptions, Level, WriteError};
use starling::transport::{Authority, Role};

// Neither timers nor sockets of tokio's are needed: the client brings its own, on threads of async-std's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: from_tokio ADDRESS")?;
    let authority = Authority::load_or_create_development()?;
    let credentials = authority.issue_client("example", Role::Writer)?.credentials()?;
    let client = Client::connect(ConnectOptions::new([address.parse()?], credentials)).await?;

    // A blind put is right for keys that are written once, like these measurements. A client is cheap to clone.
    let writers: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let key = format!("measurement:{number}");
                client.put_blind(key, format!("{number} degrees")).w(Level::All).await
            })
        })
        .collect();
    for writer in writers {
        match writer.await? {
            Ok(_) => {}
            // Nothing is there and nothing will be: it is safe to write it again, or to drop it.
            Err(WriteError::NotApplied { problem }) => println!("not written: {problem}"),
            // It may be there. Only reading the key can tell.
            Err(WriteError::Unknown(unsettled)) => println!("perhaps written: {}", unsettled.problem),
        }
    }

    let reading = client.get("measurement:42").await?;
    println!("{:?}", reading.latest());
    client.close().await;
    Ok(())
}
