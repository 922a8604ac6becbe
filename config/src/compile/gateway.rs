//! From routes of the Gateway API to the rules that calls to a service port meet, in the order in which they are tried.

mod precedence;
mod rule;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::index::Index;
use crate::merge::Source;
use crate::resource::{GatewayRoute, GrpcRoute, HttpRoute, ObjectName, ServicePort};
use crate::snapshot::{PathCondition, Protocol, Routing, Rule, RuleMatch, ServiceKey};

use precedence::Precedence;
use rule::Compiler;

/// What one namespace's callers meet, as it is put together.
#[derive(Default)]
struct Draft {
    matches: Vec<(Precedence, RuleMatch)>,
    rules: Vec<(Source, Rule)>,
}

/// Of routes in the service's own namespace for everybody; of routes elsewhere for the callers over there, who then meet
/// none of the others (GAMMA: producers and consumers).
pub(super) fn compile(
    index: &Index,
    key: &ServiceKey,
    port: &ServicePort,
    protocol: Protocol,
    from: &mut Vec<(String, Source)>,
    fields: &mut Vec<(String, Value)>,
) -> Vec<Routing> {
    if protocol == Protocol::Opaque {
        return Vec::new(); // where nobody looks for calls, none can be told from another
    }
    let parent = ObjectName::new(&key.namespace, &key.name);
    let mut drafts: BTreeMap<Option<String>, Draft> = BTreeMap::new();
    let callers = |namespace: &str| (namespace != key.namespace).then(|| namespace.to_owned());
    for (age, route) in index.grpc_routes_on(key, port).into_iter().enumerate() {
        let draft = drafts.entry(callers(route.metadata.namespace()));
        let compiler = Compiler {
            index,
            route,
            parent: &parent,
        };
        draft.or_default().add_grpc(&compiler, age);
    }
    for (age, route) in index.http_routes_on(key, port).into_iter().enumerate() {
        let draft = drafts.entry(callers(route.metadata.namespace()));
        let compiler = Compiler {
            index,
            route,
            parent: &parent,
        };
        draft.or_default().add_http(&compiler, age);
    }
    let mut routings = Vec::with_capacity(drafts.len());
    for (callers, draft) in drafts {
        let routing = draft.sorted(callers, from, fields);
        routings.push(routing);
    }
    routings
}

impl Draft {
    fn add_http(&mut self, compiler: &Compiler<HttpRoute>, age: usize) {
        let route = compiler.route;
        for (place, said) in route.spec.rules.iter().enumerate() {
            let number = self.rules.len();
            for matches in rule::http_matches(said, number) {
                self.matches
                    .push((Precedence::of(&matches, age, place), matches));
            }
            self.rule(route, place, compiler.http(said));
        }
    }

    fn add_grpc(&mut self, compiler: &Compiler<GrpcRoute>, age: usize) {
        let route = compiler.route;
        for (place, said) in route.spec.rules.iter().enumerate() {
            let number = self.rules.len();
            for matches in rule::grpc_matches(said, number) {
                self.matches
                    .push((Precedence::of(&matches, age, place), matches));
            }
            self.rule(route, place, compiler.grpc(said));
        }
    }

    fn rule<R: GatewayRoute>(&mut self, route: &R, place: usize, mut rule: Rule) {
        let source = Source::Gateway(R::KIND, route.metadata().object_name(), place);
        rule.name = source.to_string();
        self.rules.push((source, rule));
    }

    fn sorted(
        mut self,
        callers: Option<String>,
        from: &mut Vec<(String, Source)>,
        fields: &mut Vec<(String, Value)>,
    ) -> Routing {
        // Of equals the one that was written first.
        self.matches.sort_by_key(|(a, _)| *a);
        let matches: Vec<RuleMatch> = self.matches.into_iter().map(|(_, it)| it).collect();
        let whose = callers.as_deref().map_or(String::new(), |namespace| {
            format!("for callers in {namespace}: ")
        });
        for (place, matches) in matches.iter().enumerate() {
            let Some((source, rule)) = self.rules.get(matches.rule) else {
                continue;
            };
            let field = match &callers {
                None => format!("routing[{place}]"),
                Some(namespace) => format!("routing.{namespace}[{place}]"),
            };
            let told = format!("{whose}{} → {}", matches.summary(), rule.summary());
            fields.push((field.clone(), told.into()));
            from.push((field, source.clone()));
        }
        Routing {
            callers,
            matches,
            rules: self.rules.into_iter().map(|(_, rule)| rule).collect(),
        }
    }
}

impl RuleMatch {
    /// `GET /cart/* 1 header`.
    fn summary(&self) -> String {
        let path = match &self.path {
            PathCondition::Any => "/*".to_owned(),
            PathCondition::Exact(path) => path.clone(),
            PathCondition::Prefix(path) => format!("{}/*", path.trim_end_matches('/')),
            PathCondition::Regex(pattern) => format!("~{pattern}"),
            PathCondition::Grpc { service, method } => {
                let text = |it: &Option<crate::snapshot::TextCondition>| match it {
                    None => "*".to_owned(),
                    Some(text) => text.summary(),
                };
                format!("{}/{}", text(service), text(method))
            }
        };
        let mut told = match &self.method {
            Some(method) => format!("{method} {path}"),
            None => path,
        };
        for header in &self.headers {
            told += &format!(" {}: {}", header.name, header.value.summary());
        }
        for param in &self.query {
            told += &format!(" ?{}={}", param.name, param.value.summary());
        }
        told
    }
}

impl Rule {
    fn summary(&self) -> String {
        if let Some(redirect) = &self.redirect {
            return format!("redirect {}", redirect.status);
        }
        let total: u64 = self.backends.iter().map(|it| u64::from(it.weight)).sum();
        if total == 0 {
            return "500".to_owned();
        }
        let shares = self.backends.iter().map(|backend| {
            let to = (backend.to.as_ref()).map_or("500".to_owned(), ToString::to_string);
            format!("{to} {}/{total}", backend.weight)
        });
        let mut told: Vec<String> = shares.collect();
        told.extend(
            self.mirrors
                .iter()
                .map(|mirror| format!("copy to {}", mirror.to)),
        );
        told.join(", ")
    }
}

impl crate::snapshot::TextCondition {
    fn summary(&self) -> String {
        match self {
            Self::Exact(text) => text.clone(),
            Self::Regex(pattern) => format!("~{pattern}"),
        }
    }
}
