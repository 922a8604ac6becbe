//! What issue 3 asks for, and whether this run shows it.

use crate::lineup::{LARGE, SCALES};
use crate::rounds::{Cell, Figures, Load};
use crate::shape::Shape;
use crate::statistic::Sample;
use crate::subject::{Kind, Plan, Scale};
use crate::table::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    Missed,
    /// The limit lies between the quartiles: another run could say the opposite.
    Unclear,
    NotMeasured,
}

pub struct Target {
    pub figure: String,
    pub limit: f64,
    /// Else at least.
    pub at_most: bool,
    pub unit: &'static str,
    pub measured: Sample,
}

impl Verdict {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unclear => "unclear: the rounds disagree",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Target {
    pub fn verdict(&self) -> Verdict {
        let (Some(median), Some((low, high))) = (self.measured.median(), self.measured.quartiles())
        else {
            return Verdict::NotMeasured;
        };
        if low < self.limit && self.limit < high {
            return Verdict::Unclear;
        }
        if (median <= self.limit) == self.at_most || median == self.limit {
            Verdict::Met
        } else {
            Verdict::Missed
        }
    }
}

type Pick = fn(&Figures) -> &Sample;
const CPU: Pick = |figures| &figures.cpu;
const PER_SECOND: Pick = |figures| &figures.per_second;
const P50: Pick = |figures| &figures.p50;
const P99: Pick = |figures| &figures.p99;
const RATED: Load = Load::Rate(1000);

pub fn all(report: &Report) -> Vec<Target> {
    let mut targets = cpu(report);
    targets.extend(latency(report));
    targets.extend(throughput(report));
    targets.extend(memory(report));
    targets.extend(growth(report));
    targets
}

fn cpu(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    for (hops, load, to_relay, to_envoy) in [
        (1, Load::Saturation, 1.25, 0.4),
        (2, Load::Saturation, 1.3, 0.3),
        (1, Load::Multiplexed, 1.25, 0.4),
        (2, Load::Multiplexed, 1.3, 0.3),
        (1, RATED, 1.2, 0.55),
        (2, RATED, 1.2, 0.5),
    ] {
        let shapes = [Shape::Http1, Shape::GrpcSmall];
        let measured = |shape: &Shape| load != Load::Multiplexed || *shape == Shape::GrpcSmall;
        for shape in shapes.into_iter().filter(measured) {
            for (other, limit) in [(Kind::Relay, to_relay), (Kind::Envoy, to_envoy)] {
                targets.push(ratio(report, shape, load, hops, CPU, &other, limit));
            }
        }
    }
    targets.push(ratio(
        report,
        Shape::GrpcSmall,
        Load::Saturation,
        2,
        CPU,
        &Kind::Haproxy,
        1.0,
    ));
    for shape in [Shape::Http1, Shape::GrpcSmall] {
        let own = pick(report, &Kind::Weir, 1, shape, Load::Saturation, CPU);
        let floor = pick(report, &Kind::Relay, 1, shape, Load::Saturation, CPU);
        targets.push(at_most(
            format!("{shape}: CPU beyond the bare relay (all of Weir, so more than its layers)"),
            5.0,
            "µs",
            own.minus(&floor),
        ));
    }
    targets
}

fn ratio(
    report: &Report,
    shape: Shape,
    load: Load,
    hops: u8,
    what: Pick,
    other: &Kind,
    limit: f64,
) -> Target {
    let own = pick(report, &Kind::Weir, hops, shape, load, what);
    let others = pick(report, other, hops, shape, load, what);
    let cell = Cell { shape, load }.name();
    let name = name(other, hops);
    at_most(
        format!(
            "CPU a request, {cell}, {} / {name}",
            self::name(&Kind::Weir, hops)
        ),
        limit,
        "×",
        own.ratio(&others),
    )
}

fn latency(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    for hops in [1, 2] {
        for shape in [Shape::Http1, Shape::GrpcSmall] {
            for (quantile, what) in [("p50", P50), ("p99", P99)] {
                let direct = pick(report, &Kind::Direct, 1, shape, RATED, what);
                let added = |kind| pick(report, kind, hops, shape, RATED, what).minus(&direct);
                let figure = format!(
                    "added {quantile}, {}, {} / {}",
                    Cell { shape, load: RATED }.name(),
                    name(&Kind::Weir, hops),
                    name(&Kind::Envoy, hops)
                );
                targets.push(at_most(
                    figure,
                    0.55,
                    "×",
                    added(&Kind::Weir).ratio(&added(&Kind::Envoy)),
                ));
            }
        }
    }
    targets
}

fn throughput(report: &Report) -> Vec<Target> {
    let per_second = |kind, shape| pick(report, kind, 1, shape, Load::Saturation, PER_SECOND);
    let grpc = per_second(&Kind::Weir, Shape::GrpcSmall)
        .ratio(&per_second(&Kind::Envoy, Shape::GrpcSmall));
    let bulk =
        per_second(&Kind::Weir, Shape::TcpBulk).ratio(&per_second(&Kind::Relay, Shape::TcpBulk));
    vec![
        Target {
            at_most: false,
            ..at_most(
                "peak gRPC requests/s of one worker, weir / envoy".into(),
                2.4,
                "×",
                grpc,
            )
        },
        Target {
            at_most: false,
            ..at_most("opaque TCP bulk, weir / bare relay".into(), 0.95, "×", bulk)
        },
    ]
}

fn memory(report: &Report) -> Vec<Target> {
    let of_plan = |plan: Plan| report.memory.get(&plan.name()).cloned().unwrap_or_default();
    let of = |hops, scale| {
        of_plan(Plan {
            scale,
            ..plan(&Kind::Weir, hops)
        })
    };
    let once = |value: Option<f64>| value.into_iter().collect::<Sample>();
    let mebibytes = |kib: Option<u64>| once(kib.map(|kib| kib as f64 / 1024.0));
    let one = of(1, Scale::default());
    let two = of(2, Scale::default());
    let image = of_plan(Plan {
        image: true,
        ..plan(&Kind::Weir, 1)
    });
    vec![
        at_most("RSS idle".into(), 10.0, "MiB", mebibytes(one.idle)),
        at_most(
            "RSS idle, the program of the images".into(),
            10.0,
            "MiB",
            mebibytes(image.idle),
        ),
        at_most(
            "RSS of an idle mTLS connection".into(),
            24.0,
            "KiB",
            once(two.per_connection()),
        ),
        at_most(
            "RSS with 1,000 services and 5,000 endpoints".into(),
            40.0,
            "MiB",
            mebibytes(of(1, LARGE).idle),
        ),
        at_most(
            "start to ready, policy and certificate there".into(),
            100.0,
            "ms",
            one.started_in.scaled(1e3),
        ),
    ]
}

/// How cost grows with the mesh.
fn growth(report: &Report) -> Vec<Target> {
    let [small, services, endpoints, routes] = SCALES;
    let cases = [
        ("10 → 1,000 services", services),
        ("3 → 500 endpoints", endpoints),
        ("1 → 100 routes", routes),
    ];
    let mut targets = Vec::new();
    for (text, scale) in cases {
        for shape in [Shape::Http1, Shape::GrpcSmall] {
            let cpu = |scale| {
                let name = Plan {
                    scale,
                    ..plan(&Kind::Weir, 1)
                }
                .name();
                report.sample(
                    &name,
                    Cell {
                        shape,
                        load: Load::Saturation,
                    },
                    CPU,
                )
            };
            targets.push(at_most(
                format!("CPU a request, {shape}, {text}"),
                1.1,
                "×",
                cpu(scale).ratio(&cpu(small)),
            ));
        }
    }
    targets
}

fn at_most(figure: String, limit: f64, unit: &'static str, measured: Sample) -> Target {
    Target {
        figure,
        limit,
        at_most: true,
        unit,
        measured,
    }
}

fn plan(kind: &Kind, hops: u8) -> Plan {
    Plan {
        kind: kind.clone(),
        hops,
        policies: true,
        image: false,
        number: 0,
        scale: Scale::default(),
    }
}

fn name(kind: &Kind, hops: u8) -> String {
    plan(kind, hops).name()
}

fn pick(report: &Report, kind: &Kind, hops: u8, shape: Shape, load: Load, what: Pick) -> Sample {
    report.sample(&name(kind, hops), Cell { shape, load }, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(limit: f64, is_limit_at_most: bool, values: &[f64]) -> Verdict {
        let measured = values.iter().copied().collect();
        let target = at_most(String::new(), limit, "×", measured);
        Target {
            at_most: is_limit_at_most,
            ..target
        }
        .verdict()
    }

    #[test]
    fn a_target_is_met_missed_or_the_rounds_do_not_say() {
        assert_eq!(verdict(1.25, true, &[1.1, 1.2, 1.2]), Verdict::Met);
        assert_eq!(verdict(1.25, true, &[1.3, 1.4, 1.3]), Verdict::Missed);
        assert_eq!(verdict(0.95, false, &[1.0, 0.97, 1.1]), Verdict::Met);
        assert_eq!(verdict(0.95, false, &[0.5, 0.6, 0.5]), Verdict::Missed);
        assert_eq!(verdict(1.25, true, &[1.0, 1.2, 1.5]), Verdict::Unclear);
        assert_eq!(verdict(1.25, true, &[]), Verdict::NotMeasured);
    }
}
