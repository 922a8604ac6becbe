//! Files from anybody: nothing panics, nothing grows without bound, and every place that is named is there.

use proptest::prelude::*;
use weir_config::{Diagnostic, read, read_bytes};

/// Pieces that policies are made of, so that random files get past the first line.
const PIECES: [&str; 48] = [
    "apiVersion: weir.dev/v1alpha1\n",
    "kind: ResiliencePolicy\n",
    "kind: MeshConfig\n",
    "metadata: {name: a, namespace: b}\n",
    "spec:\n",
    "  targetRefs: [{kind: Service, name: a}]\n",
    "  outbound:\n",
    "    deadline: 2s\n",
    "    retries: {attempts: 2, perTryTimeout: 3s}\n",
    "    fallback: {}\n",
    "  routes:\n",
    "  - match: {http: {path: /a}}\n",
    "  - match: {grpc: {}}\n",
    "    idempotent: yes\n",
    "---\n",
    "...\n",
    "\r\n",
    "\n",
    "\t",
    " ",
    "  ",
    "- ",
    "? ",
    ": ",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "!x ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    "\"",
    "\\u0000",
    "|\n",
    ">-\n",
    "#",
    "%YAML 1.1\n",
    "\u{feff}",
    "日本",
    "\u{1f600}",
    "\u{0}",
    "\u{202e}",
    "0x1F",
    "010",
];

fn check_place(text: &str, diagnostic: &Diagnostic) {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A carriage return ends a line of YAML by itself, too.
    let body = body.replace("\r\n", "\n");
    let lines: Vec<&str> = body.split(['\n', '\r']).collect();
    let labels = diagnostic.secondary.iter().map(|label| &label.at);
    for at in std::iter::once(&diagnostic.at).chain(labels) {
        let line = lines
            .get(at.line.wrapping_sub(1))
            .unwrap_or_else(|| panic!("no line {}: {text:?}", at.line));
        let length = line.chars().count();
        assert!(
            (1..=length + 1).contains(&at.column),
            "no column {} in {line:?} of {text:?}",
            at.column
        );
        assert!(at.width >= 1);
    }
    assert!(!diagnostic.message.is_empty());
    let shown = diagnostic.to_string();
    assert!(shown.len() < 20_000, "nobody reads {} bytes", shown.len());
    assert!(
        shown.chars().all(|c| c == '\n' || !c.is_control()),
        "a terminal would act upon {shown:?}"
    );
}

fn check(text: &str) {
    let reading = read("any.yaml", text);
    let warnings = reading
        .resources
        .iter()
        .flat_map(|located| &located.warnings);
    for diagnostic in reading.errors.iter().chain(warnings) {
        check_place(text, diagnostic);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused_at_a_place_that_exists(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let reading = read_bytes("any.yaml", &bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            for diagnostic in &reading.errors {
                check_place(text, diagnostic);
            }
        } else {
            prop_assert_eq!(reading.errors.len(), 1);
        }
    }

    #[test]
    fn lines_that_end_in_each_way_are_counted_alike(
        pieces in proptest::collection::vec(proptest::sample::select(&["\r", "\n", "\r\n", "a: ", "'", "\u{b}", "]"][..]), 0..12)
    ) {
        check(&pieces.concat());
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_that_exists(text in "\\PC{0,80}") {
        check(&text);
    }

    #[test]
    fn any_pile_of_yaml_is_read_or_refused_at_a_place_that_exists(
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40)
    ) {
        check(&pieces.concat());
    }

    /// A good policy with one piece put in anywhere: most are nearly right, as people's are.
    #[test]
    fn a_good_policy_with_a_slip_is_read_or_refused_at_a_place_that_exists(
        at in 0usize..2000,
        cut in 0usize..20,
        piece in proptest::sample::select(&PIECES[..]),
    ) {
        let good = include_str!("good/sketch.yaml");
        let floor = |mut at: usize| {
            at = at.min(good.len());
            while !good.is_char_boundary(at) { at -= 1 }
            at
        };
        let (from, to) = (floor(at), floor(at + cut));
        check(&format!("{}{piece}{}", &good[..from], &good[to..]));
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let text = "a: 1\n".repeat(4_000_000);
    let errors = read("large.yaml", &text).errors;
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].message.contains("20000000 bytes"),
        "{}",
        errors[0]
    );
}

#[test]
fn a_bomb_of_aliases_ends_at_the_limit() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let errors = read("bomb.yaml", &text).errors;
    assert!(errors[0].message.contains("100000 values"), "{}", errors[0]);
}

#[test]
fn depth_has_an_end_in_every_style() {
    let flow = format!("a: {}", "[".repeat(10_000));
    let block = (0..1000).fold(String::new(), |text, depth| {
        format!("{text}{}a:\n", " ".repeat(depth))
    });
    let dashes = "- ".repeat(10_000);
    let aliases = (0..80).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        format!("{text}b{n}: &a{} [*a{n}]\n", n + 1)
    });
    for text in [flow, block, dashes, aliases] {
        let errors = read("deep.yaml", &text).errors;
        assert!(
            errors[0].message.contains("deeper than 64"),
            "{}",
            errors[0]
        );
    }
}

/// A policy of mistakes only: each costs a pass, so there must not be as many passes as mistakes.
#[test]
fn thousands_of_mistakes_are_not_all_told() {
    let mut text = String::from(
        "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: a}\nspec:\n  targetRefs:\n",
    );
    text.push_str(&"  - {kid: Service, nam: a}\n".repeat(5_000));
    let errors = read("many.yaml", &text).errors;
    let says_so = |help: &String| help.contains("not looked for");
    assert!(
        errors
            .iter()
            .any(|error| error.help.as_ref().is_some_and(says_so))
    );
    assert!(
        (20..200).contains(&errors.len()),
        "{} mistakes told",
        errors.len()
    );
}

#[test]
fn thousands_of_broken_documents_are_not_all_told() {
    let errors = read("many.yaml", &"a: b: c\n---\n".repeat(50_000)).errors;
    assert_eq!(errors.len(), 201);
    assert!(
        errors[200].message.contains("more than 200 mistakes"),
        "{}",
        errors[200]
    );
}

/// Work grows with the size of a file, not with its square. A wide margin for a busy machine.
#[test]
fn a_large_file_of_anything_is_done_with_soon() {
    let head = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: a, namespace: b}\nspec:\n";
    let targets = "  - {kind: Service, name: a}\n".repeat(30_000);
    let wrong = "  - {kind: Servic, name: a}\n".repeat(100);
    let routes = (0..9_000).fold(String::new(), |text, n| {
        format!("{text}  - match: {{http: {{path: /a{n}}}}}\n    idempotent: true\n")
    });
    for text in [
        format!("{head}  targetRefs:\n{targets}"),
        format!("{head}  targetRefs:\n{targets}{wrong}"),
        format!("{head}  targetRefs: []\n  routes:\n{routes}"),
        format!("{head}  targetRefs: []\n{}", "  a: 1\n".repeat(90_000)),
        format!("{head}  a: [{}]", "{a: 1, a: 2}, ".repeat(30_000)),
        format!(
            "apiVersion: v1\nkind: ConfigMap\ndata:\n{}",
            "  a: 1\n".repeat(90_000)
        ),
    ] {
        assert!(
            text.len() < 1 << 20,
            "{} bytes are too many to be read",
            text.len()
        );
        let started = std::time::SystemTime::now();
        read("large.yaml", &text);
        let took = started.elapsed().expect("the clock goes on");
        assert!(took.as_secs() < 5, "{took:?} for {:?}…", &text[..200]);
    }
}

/// Kubernetes objects are not ours to criticise: what is not read is not looked at.
#[test]
fn what_newer_versions_of_kubernetes_add_is_passed_over() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, newField: {on: yes, x: 010}}\n\
                spec: {containers: [{name: c, env: [{name: A, value: no}], novel: [1, {deep: ~}]}]}\n";
    let reading = read("pod.yaml", text);
    assert_eq!(reading.errors, []);
    assert_eq!(reading.resources.len(), 1);
}

#[test]
fn a_bad_document_does_not_take_the_good_ones_with_it() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\n\
                apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: p, namespace: n}\nspec: {\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";
    let reading = read("mixed.yaml", text);
    let names: Vec<&str> = reading
        .resources
        .iter()
        .map(|it| it.metadata().name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(reading.errors.len(), 1);
    let refused: Vec<String> = reading.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        ["ResiliencePolicy n/p"],
        "even a half-written document says who it is"
    );
}
