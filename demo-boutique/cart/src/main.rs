//! Starts the cart: environment → sockets → serve → drain. The variables are in the library's documentation.

use std::process::ExitCode;

use boutique_cart::server;
use boutique_cart::settings::Settings;
use boutique_chassis::drain::Signals;
use boutique_chassis::server::Sockets;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = match Settings::parse(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("cart: {mistake}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cart: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let sockets = Sockets::bind(&settings.process).await?;
    let signals = Signals::watch()?;
    let store = settings.redis_addr.as_deref().unwrap_or("memory");
    eprintln!(
        "cart: serving on {}, carts in {store}",
        sockets.service.local_addr()?
    );
    server::run(settings, sockets, signals.first()).await?;
    eprintln!("cart: drained");
    Ok(())
}
