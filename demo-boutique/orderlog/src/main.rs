//! Starts the log: environment → sockets → serve → drain. The variables are in the library's documentation.

use std::process::ExitCode;

use boutique_chassis::drain::Signals;
use boutique_chassis::server::Sockets;
use boutique_orderlog::server;
use boutique_orderlog::settings::Settings;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let settings = match Settings::parse(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("orderlog: {mistake}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orderlog: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let sockets = Sockets::bind(&settings.process).await?;
    let signals = Signals::watch()?;
    eprintln!(
        "orderlog: serving on {}, log in {}",
        sockets.service.local_addr()?,
        settings.log_file.display()
    );
    server::run(settings, sockets, signals.first()).await?;
    eprintln!("orderlog: drained");
    Ok(())
}
