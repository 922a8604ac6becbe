//! The lists of the vocabulary and of the control plane: what would let somebody in, lose a policy, or say what is not so.

use crate::Bug;
use crate::bugs::bugs;

#[rustfmt::skip]
pub(crate) const CONFIG: &[Bug] = bugs! {
    "merge/outbound.rs" {
        "no call is slow unless a policy says when":
            "deadline.map(Duration::half)" => "deadline.and(None)",
            "compile::outbound::a_route_is_laid_over_what_holds_for_all_calls";
    }
    "index.rs" {
        "a service of type ExternalName speaks for the pods that it selects":
            "!self.services.get(name).is_some_and(leads_away)" => "{ let _ = (name, leads_away); true }",
            "compile::workload::a_service_of_type_external_name_leads_to_no_pod_whatever_it_selects";
        "what is said of a service without a selector holds nowhere":
            "services.extend(listing.cloned());" => "drop(listing);",
            "compile::workload::a_service_without_a_selector_leads_to_the_pods_that_its_slices_list";
        "slices of another namespace say who speaks for a pod":
            "name.namespace == namespace" => "true",
            "compile::workload::a_service_without_a_selector_leads_to_the_pods_that_its_slices_list";
    }
    "index/change.rs" {
        "workloads are not told of a policy of their service account":
            "touched.pods.extend(pods.cloned());" => "drop(pods.cloned());",
            "authorization::a_policy_of_a_service_account_touches_its_pods";
        "a sidecar is not told that slices number its port anew":
            "touched.addresses.extend(services.filter(numbered));" => "drop(services.filter(numbered));",
            "compile::change::workloads_whose_port_only_slices_know_by_name_are_told_when_it_is_another";
        "a sidecar is not told of a slice that has gone":
            "self.touch_workloads(slice.as_deref(), None, &mut touched);" => "()",
            "compile::change::a_pod_whose_zone_is_not_told_any_more_is_told_so";
    }
    "index/gateway.rs" {
        "a route sends calls into another namespace that has not been asked":
            "service.namespace == namespace" => "true",
            "gateway::attachment::a_backend_elsewhere_needs_a_grant_and_one_that_is_not_there_is_known_as_such";
        "a consumer's route needs leave to go where it is called to":
            "parent != Some(&service)" => "true",
            "gateway::attachment::a_consumers_route_may_send_calls_to_its_own_parent_without_a_grant";
        "a second parent is leave to send the callers of the first one there":
            "parent != Some(&service)" => "route.services().all(|(_, parent)| parent != service)",
            "gateway::attachment::what_one_parent_is_called_anyway_is_no_leave_for_the_callers_of_another";
        "a route is attached to a port that is not there":
            "port.is_tcp() && leads_to(parent, port)" => "port.is_tcp()",
            "gateway::attachment::a_parent_that_is_not_there_is_told_from_one_that_is";
        "a route of an opaque port is accepted":
            "opaque.all(|by| by.is_some())" => "false",
            "gateway::attachment::a_route_of_an_opaque_port_is_not_accepted";
        "a route of a service that nobody calls by its address is accepted":
            "return Parent::NoAddress(why);" => "let _ = why;",
            "gateway::attachment::a_route_of_a_service_that_nobody_calls_by_its_address_is_not_accepted";
        "calls are sent to where another name leads":
            "self.no_address(&target) == Some(NoAddress::ExternalName)" => "false",
            "gateway::attachment::a_backend_may_be_headless_and_no_other_name";
        "a namespace may have any number of routes on a service":
            "*count > ROUTES_MAX" => "false",
            "gateway::attachment::the_33rd_route_of_a_namespace_has_no_place";
        "routes with more patterns than sidecars hold are sent to them":
            "all > PATTERNS_MAX" => "false",
            "gateway::attachment::a_route_whose_patterns_do_not_fit_beside_those_of_older_ones_has_no_place";
        "routes of both kinds are obeyed on a port":
            "claim.kind == Kind::HttpRoute && with_grpc.contains(claim.namespace())" => "false",
            "gateway::attachment::on_a_port_with_grpc_routes_the_http_routes_of_their_namespace_are_not_obeyed";
    }
    "compile/gateway.rs" {
        "matches are tried as they were written":
            "self.matches.sort_by_key(|(a, _)| *a);" => "()",
            "gateway::matches::of_grpc_routes_the_most_exact_match_comes_first";
        "a route of another namespace is for everybody's calls":
            "(namespace != key.namespace).then(|| namespace.to_owned())" => "None::<String>",
            "gateway::attachment::routes_of_the_own_namespace_are_for_all_and_those_of_another_for_its_own_callers";
    }
    "index/attachment.rs" {
        "of two policies on one target the newest wins":
            "self.policies.on(target).into_iter().next()" => "self.policies.on(target).into_iter().last()",
            "compile::outbound::of_two_policies_on_one_target_the_oldest_wins_and_the_other_is_told";
        "a policy of a port that no sidecar takes is in force":
            "(!ports.any(ServicePort::is_tcp)).then_some(Attachment::NotTcp)" => "None",
            "authorization::a_policy_on_ports_that_no_sidecar_takes_is_not_in_force";
        "a port that is not there is a target":
            "named.map(|_| Attachment::TargetNotFound)" => "None",
            "compile::outbound::of_two_policies_on_one_target_the_oldest_wins_and_the_other_is_told";
    }
    "resource/null.rs" {
        "a slice that nothing is in cannot be read":
            "Ok(value.unwrap_or_default())" => "value.ok_or_else(|| serde::de::Error::custom(\"null\"))",
            "compile::endpoints::lists_may_be_null";
    }
    "compile/shared.rs" {
        "a service with any policy speaks for a port as loudly as one that says how it takes calls":
            "1 + u8::from(policy.spec.inbound.is_some())" => "1",
            "compile::workload::of_two_services_before_one_port_the_one_with_a_policy_speaks";
    }
    "compile.rs" {
        "an endpoint whose pod is gone is called in plain text":
            "return index.pod(&name).map(|pod| Some(pod.as_ref()))" => "return Some(index.pod(&name).map(AsRef::as_ref))",
            "compile::endpoints::an_endpoint_whose_pod_is_gone_or_not_here_yet_gets_no_calls";
        "a pod that has addresses of both families is two endpoints":
            "*family.or_insert(ip.is_ipv4()) != ip.is_ipv4()" => "false",
            "compile::endpoints::a_dual_stack_pod_is_one_endpoint_in_the_family_of_its_services_first_address";
    }
    "compile/protocol.rs" {
        "callers do not hear of the ports that pods call opaque":
            "pods.any(|pod| pod.is_opaque(number))" => "false",
            "compile::endpoints::a_port_is_opaque_to_callers_when_any_pod_behind_it_says_so_and_to_a_pod_when_it_says_so_itself";
    }
    "compile/authorization.rs" {
        "a policy of a service account is nobody's":
            "on(of_account.into())" => "{ let _ = of_account; Vec::new() }",
            "authorization::a_service_account_is_all_ports_of_the_workloads_that_run_as_it";
        "what only audits is enforced":
            "(with_audits || !is_audit(policy))" => "true",
            "authorization::what_only_audits_is_enforced_nowhere_and_compared_with_what_is";
        "a second service is a way around the policy of the first":
            "of_services.collect()" => "of_services.take(1).collect()",
            "authorization::a_second_service_is_no_way_around_the_policy_of_the_first";
        "a mesh that denies by default is open":
            "by_default == Some(Access::Deny)" => "false",
            "authorization::a_mesh_that_denies_by_default_is_opened_by_policies_alone";
    }
};

#[rustfmt::skip]
pub(crate) const CONTROL_PLANE: &[Bug] = bugs! {
    "tokens/review.rs" {
        "a token that others accept, too, is good":
            "claimed != [audience]" => "!claimed.iter().any(|it| it == audience)",
            "tokens::review::tests::only_a_token_of_this_pod_for_us_alone_is_good";
        "an API server that knows no audiences is believed":
            "reviewed != [audience]" => "false",
            "tokens::review::tests::only_a_token_of_this_pod_for_us_alone_is_good";
        "another pod's token is good":
            "namespace != pod.namespace || bound != [pod.name.as_str()]" => "false",
            "tokens::review::tests::only_a_token_of_this_pod_for_us_alone_is_good";
    }
    "injector.rs" {
        "a pod that would pass by its sidecar is injected":
            "*uid == u64::from(knobs.proxy_uid)" => "false",
            "injector::tests::a_pod_that_would_not_be_in_the_mesh_is_refused_and_told_why";
        "a job that would never end is injected":
            "Err(Refusal::NeverEnds(policy.to_owned()))" => "Ok(())",
            "injector::tests::a_pod_that_would_not_be_in_the_mesh_is_refused_and_told_why";
        "a label that nobody understands is a yes":
            "return Err(Refusal::Label(label))" => "()",
            "injector::tests::a_label_that_nobody_understands_is_refused";
        "what was known of a namespace before the API server asked is enough":
            "matches!(why, Skip::NotSelected | Skip::NamespaceOptedOut(_))" => "false",
            "injector::tests::a_pod_that_nobody_would_ask_about_is_told_from_one_that_says_no_itself";
        "who was added after the sidecar is nobody's concern":
            "age::may_be_completed(pod, namespace, settings)" => "false",
            "injector::completion::tests::who_comes_after_the_sidecar_is_in_the_mesh_as_if_it_had_been_there_before";
        "who was added after the sidecar may pass by it":
            "refuse(&bare, &knobs)" => "Ok(())",
            "injector::completion::tests::who_comes_after_the_sidecar_may_not_pass_by_it_either";
    }
    "injector/probes.rs" {
        "a probe that another webhook has set is taken for the sidecar's":
            "handler[\"path\"] == asked[\"path\"] && handler[\"port\"] == asked[\"port\"]" => "true",
            "injector::completion::tests::a_probe_that_another_put_in_place_of_the_sidecars_is_taken_as_it_is";
    }
    "injector/asked.rs" {
        "a pod that said no is injected":
            "Asked::No(Skip::OptedOut(label))" => "Asked::Yes",
            "injector::tests::who_said_no_is_left_alone";
        "a pod's yes counts where its namespace has said no":
            "return Asked::No(Skip::NamespaceOptedOut(label.clone()))" => "()",
            "injector::asked::tests::whom_the_webhooks_are_not_asked_about_is_not_injected_elsewhere";
    }
    "source/kubernetes/listener.rs" {
        "what a list that broke off has read is forgotten":
            "self.listing = Some(Listing {\n            seen: HashSet::new(),\n            changes,\n        });" => "drop(changes);\n        self.listing = Some(Listing::default());",
            "source::kubernetes::listener::tests::a_list_that_breaks_off_loses_no_last_good_content";
    }
    "mesh/enforcement.rs" {
        "every sidecar has to acknowledge a policy of one service account":
            "pod.is_some_and(|pod| pod.account() == *account)" => "pod.is_some()",
            "mesh::tests::enforcement::sidecars_of_those_who_run_as_a_service_account_stand_before_it";
        "a service that is not there is waited for":
            "published.filter(|it| !it.policy.is_empty())" => "published",
            "mesh::tests::enforcement::nobody_has_to_acknowledge_a_service_that_is_not_there";
        "where a policy does not hold is not told":
            "compile::exceptions(index, policy, &target)" => "Vec::new()",
            "mesh::tests::enforcement::where_a_policy_does_not_hold_though_it_has_its_target_is_known";
        "what is said for callers of a headless service looks as if somebody might hold it":
            "self.index.no_address(&of).filter(|_| reach.callers)" => "None",
            "mesh::tests::enforcement::of_a_headless_service_what_is_said_for_callers_is_known_to_hold_for_nobody";
        "pods that are open to anybody are not told":
            "compile::unmeshed(&self.index, &of)" => "None",
            "mesh::tests::enforcement::of_pods_without_a_sidecar_only_what_is_for_them_is_told";
    }
    "kubernetes/status.rs" {
        "a policy is enforced on pods that have no sidecar":
            "words.is_empty()" => "true",
            "kubernetes::status::tests::pods_without_a_sidecar_are_told_and_what_is_for_them_is_not_enforced";
    }
    "mesh/published.rs" {
        "a node-local service is called on other nodes where its own has none":
            "of_node.nodes.get(node).unwrap_or(&of_node.elsewhere)" => "of_node.nodes.get(node).unwrap_or(self)",
            "mesh::tests::callers_of_a_node_local_service_have_the_endpoints_of_their_own_node";
        "routes of one namespace are told to all":
            "policy.routing = of_everybody" => "policy.routing.extend(of_everybody)",
            "mesh::tests::routes_of_one_namespace_are_told_to_its_own_callers_and_to_nobody_else";
    }
    "kubernetes/holds.rs" {
        "what another control plane holds is let go of":
            "here.get(&key) != self.agreed.get(&key)" => "true",
            "kubernetes::holds::tests::what_one_is_told_holds_for_all_until_any_of_them_lets_go_of_it";
        "what an operator changes during a write is undone by it":
            "now.get(key) == here.get(key)" => "true",
            "kubernetes::holds::tests::nothing_changes_here_before_the_lease_says_so_and_nothing_is_forgotten";
    }
    "push/ledger.rs" {
        "a push takes whatever there is":
            "bytes < PUSH_BYTES_MAX" => "true",
            "push::ledger::tests::a_push_ends_where_it_has_grown_large_and_what_fits_into_none_is_refused_by_name";
        "what fits into no message is sent":
            "service.policy.len() > POLICY_BYTES_MAX" => "false",
            "push::ledger::tests::a_push_ends_where_it_has_grown_large_and_what_fits_into_none_is_refused_by_name";
        "a refusal is forgotten with the next acknowledgement":
            "!self.refused.is_empty()" => "false",
            "push::ledger::tests::a_refusal_is_remembered_until_another_policy_takes_its_place";
        "what was acknowledged is sent again":
            "self.known.insert(service.key.clone(), service);" => "drop(service);",
            "push::ledger::tests::what_a_sidecar_has_is_not_sent_again";
        "what was refused is sent again and again":
            "self.refused.contains_key(&key)" => "false",
            "push::ledger::tests::a_refused_policy_is_sent_again_only_when_it_is_another";
        "an address comes before its service":
            "self.withheld.insert(address);\n                    continue;" => "()",
            "push::ledger::tests::an_address_waits_for_its_service";
    }
    "kubernetes/peers.rs" {
        "status tells of the sidecars of one control plane":
            "found.proxies += proxies;" => "()",
            "kubernetes::peers::tests::whoever_writes_status_adds_what_the_others_count_for_as_long_as_they_say_it";
        "an acknowledgement of what a policy said before counts":
            "*of == generation" => "true",
            "kubernetes::peers::tests::whoever_writes_status_adds_what_the_others_count_for_as_long_as_they_say_it";
        "whoever has gone is counted for ever":
            "now.saturating_duration_since(*since) < patience" => "true",
            "kubernetes::peers::tests::whoever_writes_status_adds_what_the_others_count_for_as_long_as_they_say_it";
    }
    "kubernetes/routes.rs" {
        "what was written takes the place of what has come since":
            "known.metadata.resource_version.as_deref() == before" => "true",
            "kubernetes::routes::tests::what_was_written_does_not_take_the_place_of_what_has_come_since";
        "other controllers' answers to a route are lost":
            "[others, ours].concat()" => "ours",
            "kubernetes::routes::tests::a_route_of_a_service_is_answered_once_and_others_answers_stay";
    }
    "webhook/judges.rs" {
        "a review that nobody thought of takes its thread along":
            "catch_unwind(AssertUnwindSafe(job))" => "Ok::<(), Box<dyn std::any::Any + Send>>(job())",
            "webhook::judges::tests::a_review_that_nobody_thought_of_takes_no_thread_along";
    }
    "webhook/size.rs" {
        "a review may have any number of values":
            "values > VALUES_MAX" => "false",
            "webhook::size::tests::values_are_counted_wherever_they_are_and_texts_are_not_looked_into";
    }
    "shares.rs" {
        "one address may have all there is":
            "has + amount > of_one_max" => "false",
            "shares::tests::one_that_takes_all_it_can_leaves_the_others_theirs";
    }
    "tls/handshakes.rs" {
        "silent connections of one address take everybody's places":
            "Semaphore::new(PLACES_OF_ONE)" => "Semaphore::new(PLACES)",
            "tls::tests::silent_connections_of_one_address_keep_nobody_elses_handshake_waiting";
        "who says nothing is waited for although others wait":
            "self.places.available_permits() == 0" => "false",
            "tls::handshakes::tests::a_silent_handshake_has_ten_seconds_and_two_when_others_wait";
    }
    "journal/kept.rs" {
        "what sidecars say pushes out what the control plane did":
            "(facts.len() * 8).saturating_sub(self.facts_max.saturating_mul(*part))" => "facts.front().map_or(0, |seq| usize::MAX / (*seq as usize + part / 8))",
            "journal::tests::what_the_control_plane_did_survives_whatever_sidecars_say";
    }
    "breakers.rs" {
        "one that only observes is held open, says the status":
            "!row.observed" => "true",
            "breakers::tests::one_that_only_observes_holds_nothing_open_and_is_told_as_such";
        "what was open when a sidecar started anew is open for ever":
            "row.is_of_note() && !stands.contains(*key)" => "false",
            "breakers::tests::what_a_sidecar_does_not_say_is_open_when_it_connects_is_closed";
        "one caller's rows fill the place of all":
            "rows.len() >= ROWS_OF_ONE_MAX" => "false",
            "breakers::tests::a_sidecar_that_invents_endpoints_has_its_own_share_and_the_others_theirs";
    }
    "cli/install/set.rs" {
        "what begins with a zero is a number":
            "text == \"0\" || !text.starts_with('0')" => "true",
            "cli::install::set::tests::a_set_means_what_it_means_to_helm";
    }
};
