//! A shopping cart that survives partitions: read all versions, merge them, write one back.
//!
//! ```text
//! starling lab --nodes 3                                        # in another terminal; it prints the addresses
//! cargo run --example read_modify_write -- 127.0.0.1:PORT apple
//! ```

use std::collections::BTreeSet;
use std::error::Error;

use async_std::task;
use starling::client::{Bytes, Client, ConnectOptions, Updated};
use starling::transport::{Authority, Role};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(item)) = (arguments.next(), arguments.next()) else {
        return Err("usage: read_modify_write ADDRESS ITEM".into());
    };
    task::block_on(add(&address, &item))
}

async fn add(address: &str, item: &str) -> Result<(), Box<dyn Error>> {
    // On one's own machine the development authority makes the certificate. A real cluster hands them out, see
    // `Credentials::load`.
    let authority = Authority::load_or_create_development()?;
    let credentials = authority.issue_client("example", Role::Writer)?.credentials()?;
    let client = Client::connect(ConnectOptions::new([address.parse()?], credentials)).await?;

    // The closure gets every concurrent version of the cart. Their union is right for a cart: nothing that anybody put
    // in is lost, and merging the same cart twice does no harm.
    let updated = client
        .update("cart", |carts: &[Bytes]| {
            let mut items: BTreeSet<&[u8]> = carts.iter().flat_map(items_of).collect();
            items.insert(item.as_bytes());
            items.into_iter().collect::<Vec<_>>().join(&b',')
        })
        .await?;
    if let Updated::Written(receipt) = updated {
        println!("written to {} nodes by attempt {}", receipt.acks.len(), receipt.attempt);
    }

    let cart = client.get("cart").await?;
    for item in cart.values().iter().flat_map(items_of) {
        println!("in the cart: {}", String::from_utf8_lossy(item));
    }
    client.close().await;
    Ok(())
}

fn items_of(cart: &Bytes) -> impl Iterator<Item = &[u8]> {
    cart.split(|byte| *byte == b',').filter(|item| !item.is_empty())
}
