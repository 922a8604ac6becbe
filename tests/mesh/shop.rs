//! The shop itself: what crosses the cart's link, with the mesh and without.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weir_lab::client::Command;

use crate::world::{PATIENCE, alone, part_of_shop, post};

/// What any of the shop's messages would show of itself on the cart's link: gRPC to the cart, Redis' protocol from it.
const PLAIN_TEXT: [&str; 5] = [
    "boutique.v1.Cart",
    "application/grpc",
    "wicker-creel",
    "HINCRBY",
    "EVALSHA",
];
/// Every frame on a link into a file. tcpdump would give up being root, which in a user namespace nobody can.
const CAPTURE: &str = "
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((sys.argv[1], 0))
with open(sys.argv[2], 'wb', 0) as file:
    file.write(b'begun')
    while True:
        file.write(link.recv(65536))
";
const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// Everything on the cart's link while somebody puts things into a cart.
fn capture(mesh: bool) -> Vec<u8> {
    let _alone = alone();
    let (lab, page) = part_of_shop(mesh, &["storefront", "cart", "redis"], &[]);
    // Until the whole way works, so that what is captured is traffic and not failures.
    let until = Instant::now() + PATIENCE;
    while !put_into_cart(page) {
        assert!(Instant::now() < until, "nothing can be put into a cart");
    }

    let cart = lab.pod("cart").expect("there is one").address;
    let link = lab
        .exec(None, &["ip", "-o", "route", "get", &cart.to_string()])
        .expect("the lab answers");
    let mut words = link
        .stdout
        .split_whitespace()
        .skip_while(|word| *word != "dev");
    let link = words.nth(1).expect("a route names its link").to_owned();
    let file = lab.folder().join("cart.capture");
    let argv = ["python3", "-c", CAPTURE, &link, &file.display().to_string()];
    let argv = argv.map(str::to_owned).into();
    let nothing = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("there is one");
    let command = Command {
        argv,
        env: std::env::vars().collect(),
        ..Command::default()
    };
    let running = lab
        .client()
        .run(command, [&nothing, &nothing, &nothing])
        .expect("the capture runs");
    let captured = || std::fs::metadata(&file).map_or(0, |file| file.len());
    while captured() == 0 {
        assert!(Instant::now() < until, "the capture does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..20 {
        assert!(put_into_cart(page));
    }
    let until = Instant::now() + Duration::from_secs(5);
    while captured() < 10_000 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    let bytes = std::fs::read(&file).expect("it is written");
    println!("mesh {mesh}: {} bytes on {link}", bytes.len());
    bytes
}

/// As a browser would; whether it worked.
fn put_into_cart(page: SocketAddr) -> bool {
    let form = "product_id=wicker-creel&quantity=1";
    post(page, SESSION, "/cart", form).is_some_and(|(status, _)| status == 303)
}

fn seen(capture: &[u8]) -> Vec<&'static str> {
    let contains = |text: &&&str| {
        capture
            .windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    };
    PLAIN_TEXT.iter().filter(contains).copied().collect()
}

#[test]
fn nothing_of_the_shop_can_be_read_on_the_carts_link() {
    // Without the mesh, so that it is known to be there to be seen.
    let without = seen(&capture(false));
    assert!(
        without.contains(&"wicker-creel") && without.contains(&"HINCRBY"),
        "what is looked for would be seen: {without:?}"
    );
    let with = capture(true);
    assert!(
        with.len() > 10_000,
        "there was traffic: {} bytes",
        with.len()
    );
    assert_eq!(seen(&with), Vec::<&str>::new());
}
