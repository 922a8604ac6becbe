//! What is installed: definitions, control plane, webhooks.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use weir_config::crd;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Finding;

/// Of a certificate that is renewed long before.
const CERTIFICATE_SECONDS_MIN: i64 = 3 * 24 * 3600;

pub(super) fn definitions(crds: &[Value]) -> Vec<Finding> {
    let judge = |wanted: Value| {
        let name = wanted["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let help = "weir crds | kubectl apply --server-side -f -";
        match crds.iter().find(|crd| crd["metadata"]["name"] == *name) {
            None => Finding::wrong(format!("there is no definition {name}"), help),
            Some(crd) if has(&crd["spec"], &wanted["spec"]) => {
                Finding::fine(format!("{name} is as this weir has it"))
            }
            Some(_) => Finding::wrong(
                format!(
                    "{name} is of another version than this weir ({})",
                    env!("CARGO_PKG_VERSION")
                ),
                help,
            ),
        }
    };
    crd::all().into_iter().map(judge).collect()
}

/// Whether all that is wanted is there; the API server adds defaults of its own.
fn has(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            // What is empty may be left out.
            let is_nothing = wanted.as_object().is_some_and(|wanted| wanted.is_empty());
            there
                .get(name)
                .map_or(is_nothing, |there| has(there, wanted))
        }),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(a, b)| has(a, b))
        }
        (Value::Number(there), Value::Number(wanted)) => there.as_f64() == wanted.as_f64(),
        (there, wanted) => there == wanted,
    }
}

pub(super) fn control_plane(deployment: Option<&Value>, namespace: &str) -> Vec<Finding> {
    let Some(deployment) = deployment else {
        return vec![Finding::wrong(
            format!("there is no control plane in namespace {namespace}"),
            "weir install | kubectl apply --server-side -f -",
        )];
    };
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let what = format!("{ready} of {wanted} control planes are ready");
    let mut findings = vec![match ready {
        0 => Finding::wrong(
            what,
            format!("kubectl -n {namespace} describe deployment weir-control-plane, and logs"),
        ),
        ready if ready < wanted => Finding::warning(what, "the others take over meanwhile"),
        _ => Finding::fine(what),
    }];
    let version = &deployment["metadata"]["labels"]["app.kubernetes.io/version"];
    let (theirs, ours) = (
        version.as_str().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION"),
    );
    findings.push(match theirs == ours {
        true => Finding::fine(format!("control plane and weir are of one version: {ours}")),
        false => Finding::warning(
            format!("the control plane is of version {theirs}, this weir of {ours}"),
            "use the weir of the control plane's version, or install this one's control plane",
        ),
    });
    findings
}

pub(super) fn webhooks(configurations: &[Value], now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        let Some(configuration) = configurations.iter().find(|one| one["kind"] == kind) else {
            let help = "weir install | kubectl apply --server-side -f -";
            findings.push(Finding::wrong(format!("there is no {kind} weir"), help));
            continue;
        };
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let name = webhook["name"].as_str().unwrap_or_default();
            findings.push(certificate(name, &webhook["clientConfig"]["caBundle"], now));
        }
    }
    findings
}

/// The API server asks only whom this certificate has signed for.
fn certificate(webhook: &str, bundle: &Value, now: i64) -> Finding {
    let Some(bundle) = bundle.as_str().filter(|bundle| !bundle.is_empty()) else {
        return Finding::wrong(
            format!("webhook {webhook} has no certificate yet"),
            "the control plane writes it when it starts: look at its log",
        );
    };
    let ends = base64(bundle).and_then(|pem| {
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        let ends = certificates.filter_map(|der| {
            let (_, certificate) = X509Certificate::from_der(&der).ok()?;
            Some(certificate.validity().not_after.timestamp())
        });
        ends.max()
    });
    match ends {
        None => Finding::wrong(
            format!("what webhook {webhook} trusts is no certificate"),
            "start the control plane anew: it writes it again",
        ),
        Some(ends) if ends < now => Finding::wrong(
            format!("the certificate that webhook {webhook} trusts has expired"),
            "start the control plane anew: it writes it again",
        ),
        Some(ends) if ends - now < CERTIFICATE_SECONDS_MIN => Finding::warning(
            format!(
                "the certificate that webhook {webhook} trusts expires in {} h",
                (ends - now) / 3600
            ),
            "the control plane should have renewed it: look at its log",
        ),
        Some(ends) => Finding::fine(format!(
            "webhook {webhook} trusts a certificate for another {} days",
            (ends - now) / 86_400
        )),
    }
}

/// RFC 4648, as JSON has bytes.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| -> Option<u32> {
        let at = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u32::from(at))
    };
    let digits: Option<Vec<u32>> = text.trim_end_matches('=').bytes().map(digit).collect();
    let mut bytes = Vec::new();
    for group in digits?.chunks(4) {
        let bits =
            group.iter().fold(0, |bits, digit| (bits << 6) | digit) << (6 * (4 - group.len()));
        let all = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        bytes.extend_from_slice(&all[..group.len() - 1]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_rfc_4648_has_it() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64("Zm 9"), None);
    }

    #[test]
    fn a_definition_may_have_more_than_ours_and_nothing_less() {
        let wanted = crd::all().remove(0);
        let mut there = wanted.clone();
        there["spec"]["conversion"] = serde_json::json!({ "strategy": "None" });
        let all = |crd: &Value| definitions(std::slice::from_ref(crd))[0].state;
        assert_eq!(all(&there), super::super::State::Fine);
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        there.pointer_mut(spec).expect("it has one")["properties"] = serde_json::json!({});
        assert_eq!(all(&there), super::super::State::Wrong);
    }
}
