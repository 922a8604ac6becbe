//! The command line, and the plan it means.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use boutique_load::{
    Arrivals, Bounds, GrpcCall, Journey, Journeys, Network, Plan, Rate, Reach, Refused, Target,
    Work, parse_span,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hyper::http::{HeaderName, HeaderValue};

const ABOUT: &str = "Open-loop load, bounded in time, count and reach";

const LONG_ABOUT: &str = "\
Open-loop load, bounded in time, count and reach.

Requests are sent when a schedule says, not when earlier ones have been answered. Latency counts from the
scheduled time: if the target stalls for a second, everybody who would have called in that second waited,
and the percentiles show it. A request that cannot start because --max-in-flight are under way already is
counted as dropped, never skipped.

Load goes to loopback, with --lab to a lab's networks (10.244.0.0/16, 10.96.0.0/16), with --allow to another
private network. Every other target is refused.";

const EXAMPLES: &str = "\
Examples:
  Visitors of the storefront, 50 a second for half a minute:
    boutique-load shop http://127.0.0.1:8080 --rate 50 --duration 30s

  A burst: 20 a second, 120 from the 10th second on, 20 again from the 25th:
    boutique-load shop http://127.0.0.1:8080 --rate 20,120@10s,20@25s --duration 40s --seed 7

  Only pages and carts, every request in a file, the summary as JSON:
    boutique-load shop http://10.96.0.2 --lab --journeys browse=4,cart=1 --rate 30 --duration 1m \\
        --jsonl requests.jsonl -o json > summary.json

  One page at an even pace, for a benchmark:
    boutique-load http http://127.0.0.1:9000/healthz --arrivals constant --rate 2000 --duration 20s

  A gRPC call (the bytes are an encoded message: field 1 = \"a\"):
    boutique-load grpc 127.0.0.1:7070 --path /boutique.v1.Cart/GetCart --body-hex 0a0161 \\
        --connections 4 --rate 500 --duration 10s

Reading the result:
  ok         answered as it should be
  degraded   answered, and the shop says that a part was replaced (header boutique-degraded)
  shed       refused on purpose: 429, 503 with x-weir-overload, gRPC RESOURCE_EXHAUSTED
  error      any other failure, also no connection
  timeout    no answer within --timeout, HTTP 504, gRPC DEADLINE_EXCEEDED
  dropped    never sent, too many in flight
  send lag   how late this program was; above a few milliseconds, distrust the latencies

Exit codes:
  0 fine   1 nothing answered, or --require-success not met   2 usage, refused target   130 interrupted";

#[derive(Debug, Parser)]
#[command(name = "boutique-load", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Visitors of the storefront: pages, searches, carts
    ///
    /// Each request says in x-weir-criticality how much it matters: a checkout is critical, a cart default, all else sheddable.
    Shop {
        /// The storefront, like http://127.0.0.1:8080
        target: String,
        /// Shares of browse, product, search, cart and checkout; one that is not named does not happen
        #[arg(
            long,
            value_name = "NAME=WEIGHT,…",
            default_value = "browse=10,product=6,search=2,cart=2,checkout=1"
        )]
        journeys: String,
        /// Product ids to ask for, instead of the demo catalog's
        #[arg(long, value_name = "ID,…", value_delimiter = ',')]
        products: Option<Vec<String>>,
        #[command(flatten)]
        common: Common,
    },
    /// GET of one URL over HTTP/1.1
    Http {
        /// Like http://127.0.0.1:9000/path
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// One unary gRPC call over HTTP/2 without TLS
    Grpc {
        /// Like 127.0.0.1:7070
        target: String,
        /// Like /package.Service/Method
        #[arg(long)]
        path: String,
        /// The encoded request message in hexadecimal; empty is an empty message
        #[arg(
            long,
            value_name = "HEX",
            default_value = "",
            conflicts_with = "body_file"
        )]
        body_hex: String,
        /// The encoded request message in a file
        #[arg(long, value_name = "FILE")]
        body_file: Option<PathBuf>,
        /// HTTP/2 connections, used in turn
        #[arg(long, value_name = "N", default_value_t = 1)]
        connections: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Requests per second, constant or in steps like 50,200@10s,50@20s
    #[arg(long)]
    rate: Rate,
    /// How long to send, at most 1h
    #[arg(long, value_parser = parse_span)]
    duration: Duration,
    /// How requests are spread
    #[arg(long, value_enum, default_value_t = Spread::Poisson)]
    arrivals: Spread,
    /// The same seed sends the same requests at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a request may take
    #[arg(long, value_parser = parse_span, default_value = "5s")]
    timeout: Duration,
    /// Requests at once; more are counted as dropped
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_in_flight: usize,
    /// Requests in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_requests: u64,
    /// On every request; may be given again
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Also load a lab on this machine: 10.244.0.0/16 and 10.96.0.0/16
    #[arg(long)]
    lab: bool,
    /// Also load this private network; may be given again
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// One line of JSON a request: t_intended, t_start, t_end (seconds since the start), journey, status, class
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// The summary on stdout
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Length of an interval of the series in the JSON summary
    #[arg(long, value_parser = interval, default_value = "1s")]
    pub(crate) interval: Duration,
    /// Fail unless at least this share of what was offered was ok or degraded, like 0.99
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub(crate) require_success: Option<f64>,
    /// No progress on stderr
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Threads to work with; more than one helps only where there are processors to spare
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Spread {
    /// Like independent visitors, with bursts
    Poisson,
    /// Evenly
    Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl Arguments {
    pub(crate) fn plan(self) -> Result<(Plan, Output), Refused> {
        match self.command {
            Command::Shop {
                target,
                journeys,
                products,
                common,
            } => {
                let mut shop = Journeys::shop().weighted(&journeys)?;
                if let Some(products) = products {
                    shop = shop.products(products)?;
                }
                common.plan(&target, |_| Ok(Work::Http(shop)))
            }
            Command::Http { url, common } => common.plan(&url, |target| {
                let get = Journey::get("get", target.path());
                Journeys::of(vec![get]).map(Work::Http)
            }),
            Command::Grpc {
                target,
                path,
                body_hex,
                body_file,
                connections,
                common,
            } => common.plan(&target, |_| {
                let message = match body_file {
                    Some(file) => std::fs::read(&file)
                        .map_err(|error| Refused::new(format!("{}: {error}", file.display())))?,
                    None => from_hex(&body_hex)?,
                };
                GrpcCall::new(&path, &message, connections).map(Work::Grpc)
            }),
        }
    }
}

impl Common {
    fn plan(
        self,
        target: &str,
        work: impl FnOnce(&Target) -> Result<Work, Refused>,
    ) -> Result<(Plan, Output), Refused> {
        let mut reach = Reach::loopback();
        if self.lab {
            reach = reach.lab();
        }
        let reach = self.allow.into_iter().fold(reach, Reach::and);
        let bounds = Bounds::new(self.duration)?
            .timeout(self.timeout)?
            .max_in_flight(self.max_in_flight)?
            .max_requests(self.max_requests)?;
        let target = Target::parse(target, &reach)?;
        let plan = Plan {
            work: work(&target)?,
            target,
            rate: self.rate,
            arrivals: match self.arrivals {
                Spread::Poisson => Arrivals::Poisson,
                Spread::Constant => Arrivals::Constant,
            },
            bounds,
            seed: self.seed,
            headers: self.header,
        };
        Ok((plan, self.output))
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Refused> {
    let refuse = || Refused::new("expected a header like 'x-name: value'");
    let (name, value) = text.split_once(':').ok_or_else(refuse)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| refuse())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|_| refuse())?;
    Ok((name, value))
}

fn interval(text: &str) -> Result<Duration, Refused> {
    let interval = parse_span(text)?;
    match interval >= Duration::from_millis(10) {
        true => Ok(interval),
        false => Err(Refused::new("an interval is 10ms at least")),
    }
}

fn ratio(text: &str) -> Result<f64, Refused> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| Refused::new("expected a ratio from 0 to 1, like 0.99"))
}

fn from_hex(text: &str) -> Result<Vec<u8>, Refused> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0);
    let digits =
        digits.ok_or_else(|| Refused::new("--body-hex expects pairs of hexadecimal digits"))?;
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits are a byte");
    Ok(digits.chunks_exact(2).map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn refusal(line: &str) -> String {
        let words = line.split_whitespace();
        match Arguments::try_parse_from(words) {
            Ok(arguments) => arguments.plan().expect_err(line).to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_without_an_end_or_a_rate_cannot_be_asked_for() {
        let said = refusal("boutique-load shop http://127.0.0.1:1");
        assert!(
            said.contains("--duration") && said.contains("--rate"),
            "{said}"
        );
        let said = refusal("boutique-load shop http://127.0.0.1:1 --rate 1 --duration 2h");
        assert!(said.contains("at most 1h"), "{said}");
    }

    #[test]
    fn lab_addresses_need_to_be_asked_for() {
        let line = "boutique-load http http://10.244.0.9:80/ --rate 1 --duration 1s";
        assert!(refusal(line).contains("--lab"));
        for allowed in ["--lab", "--allow 10.244.0.0/24"] {
            let line = format!("{line} {allowed}");
            let arguments = Arguments::try_parse_from(line.split_whitespace()).expect("valid");
            arguments.plan().expect("allowed");
        }
        let said = refusal(&format!("{line} --allow 0.0.0.0/0"));
        assert!(said.contains("not a private network"), "{said}");
    }

    #[test]
    fn hexadecimal_is_pairs_of_digits() {
        assert_eq!(from_hex("0a0161"), Ok(vec![10, 1, 97]));
        assert_eq!(from_hex(""), Ok(vec![]));
        from_hex("0a0").expect_err("half a byte");
        from_hex("zz").expect_err("no digits");
    }
}
