//! What came of it, for programs: every figure of every round.

use serde_json::{Value, json};

use crate::rounds::Load;
use crate::statistic::Sample;
use crate::table::Report;
use crate::target::{self, Verdict};

pub fn render(report: &Report) -> String {
    let value = json!({
        "command": report.command,
        "date": report.date,
        "machine": report.machine,
        "versions": report.versions.iter().map(|(name, version)| json!({"name": name, "version": version})).collect::<Vec<_>>(),
        "rounds": report.rounds,
        "foreignShare": report.foreign,
        "cells": cells(report),
        "memory": memory(report),
        "targets": targets(report),
        "leftOut": report.left_out.iter().map(|(name, why)| json!({"name": name, "why": why})).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&value).expect("no map has a key that is no string") + "\n"
}

fn cells(report: &Report) -> Vec<Value> {
    let cell =
        |((subject, cell), figures): (&(String, crate::rounds::Cell), &crate::rounds::Figures)| {
            json!({
                "subject": subject,
                "shape": cell.shape.name(),
                "load": match cell.load {
                    Load::Saturation => json!("saturation"),
                Load::Multiplexed => json!("multiplexed"),
                    Load::Rate(rate) => json!(rate),
                },
                "cpuMicros": sample(&figures.cpu),
                "perSecond": sample(&figures.per_second),
                "busy": sample(&figures.busy),
                "p50Micros": sample(&figures.p50),
                "p99Micros": sample(&figures.p99),
                "p999Micros": sample(&figures.p999),
                "failed": figures.failed,
                "fault": figures.fault,
            })
        };
    report.results.iter().map(cell).collect()
}

fn memory(report: &Report) -> Vec<Value> {
    let memory = |(name, memory): (&String, &crate::memory::Memory)| {
        json!({
            "subject": name,
            "idleKib": memory.idle,
            "thousandConnectionsKib": memory.connections,
            "afterLoadKib": memory.after_load,
            "startedInSeconds": sample(&memory.started_in),
        })
    };
    report.memory.iter().map(memory).collect()
}

fn targets(report: &Report) -> Vec<Value> {
    let target = |target: target::Target| {
        let met = match target.verdict() {
            Verdict::Met => json!(true),
            Verdict::Missed => json!(false),
            Verdict::Unclear | Verdict::NotMeasured => Value::Null,
        };
        json!({"figure": target.figure, "limit": target.limit, "atMost": target.at_most, "unit": target.unit,
               "measured": target.measured.median(), "met": met})
    };
    target::all(report).into_iter().map(target).collect()
}

/// A round that failed is null.
fn sample(sample: &Sample) -> Value {
    json!({"median": sample.median(), "rounds": sample.values()})
}
