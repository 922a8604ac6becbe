//! How the layers keep what the policies promise.

use crate::Bug;
use crate::bugs::bugs;

#[rustfmt::skip]
pub(crate) const BUGS: &[Bug] = bugs! {
    "layer/breaker.rs" {
        "a breaker that only observes refuses":
            "self.observes.load(Ordering::Relaxed) && !policy.is_held_by_operator()" => "false",
            "layer::breaker::tests::one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced";
        "who asks too often is a failure of the service":
            "self.over_quota = body::is_over_quota(response);" => "()",
            "layer::breaker::tests::who_asks_more_often_than_it_may_is_no_reason_to_stop_asking";
        "the breaker does not hear that a stream has begun":
            "self.ticket.is_probe()" => "false",
            "layer::breaker::tests::a_service_that_only_streams_is_called_again_after_it_failed";
        "a service that hangs until the deadline is nobody's failure":
            "self.enough.is_over(now)" => "false",
            "layer::breaker::tests::a_service_that_hangs_until_the_policys_deadline_opens_it_and_a_hasty_caller_does_not";
        "a breaker that is forced open passes where it observes":
            "self.observes.load(Ordering::Relaxed) && !policy.is_held_by_operator()" => "self.observes.load(Ordering::Relaxed)",
            "layer::breaker::tests::one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced";
    }
    "layer/retry.rs" {
        "half of the time is kept for a try that the policy does not make":
            "tries_left > 1 && retries.on.unavailable" => "tries_left > 1",
            "layer::retry::tests::a_try_has_all_the_time_where_the_policy_makes_no_other_of_what_takes_too_long";
        "what is not retried earns nothing":
            "budget.deposit(now)" => "()",
            "layer::retry::tests::what_is_not_retried_earns_hedges_all_the_same";
        "who is turned away by one of many waits as long as that one asks":
            "verdict == Verdict::Overloaded { service: false } && endpoint(result).is_some_and(elsewhere)" => "false",
            "layer::retry::tests::who_is_turned_away_by_one_busy_endpoint_goes_to_another_at_once";
        "the next hop is not told that this is a retry":
            "mark(head, context);" => "()",
            "layer::retry::tests::each_try_goes_out_whole_and_knows_where_the_others_failed";
        "what was retried below in vain is retried":
            "headers.contains_key(&head::RETRY)" => "false",
            "layer::chain::three_layers_of_retries_are_one";
    }
    "race.rs" {
        "of two tries only the first one's endpoint is known":
            "self.to.iter()" => "self.to[..1].iter()",
            "layer::hedge::tests::what_follows_two_tries_that_failed_goes_to_neither_of_their_endpoints";
    }
    "layer/hedge.rs" {
        "who loses a race is judged by it":
            "race.end();" => "()",
            "layer::hedge::tests::whoever_loses_counts_nowhere";
    }
    "layer/deadline.rs" {
        "an answer that stops half-way is waited for for ever":
            "response.body_mut().end_at(timer);" => "drop(timer);",
            "layer::deadline::tests::so_does_an_answer_that_stops_half_way";
    }
    "layer/attempt.rs" {
        "a try is given up at its share for one that could not end in time":
            "can_end(self.deadline.remaining(now), self.endpoints.p50(now))" => "true",
            "layer::attempt::tests::a_try_has_more_than_its_share_where_no_other_could_end_in_time";
        "nobody had the request whose time was up":
            "Error::DeadlineExceeded { at: Some(member.address()) }" => "Error::DeadlineExceeded { at: None::<std::net::SocketAddr> }",
            "layer::attempt::tests::who_had_the_request_when_its_time_was_up_is_told_of";
        "nobody waits for what comes behind a head":
            "is_late && has_second" => "false",
            "layer::retry::tests::trailers::a_status_behind_the_head_is_tried_again_while_no_message_has_passed";
        "a try is given up at its share with nothing to follow":
            "share.until_another(now)" => "Some(Duration::ZERO)",
            "layer::attempt::tests::a_try_has_more_than_its_share_while_no_other_is_paid_for";
        "a call is given up with its endpoint with nothing to follow":
            "share.until_another(Instant::now())" => "Some(Duration::ZERO)",
            "layer::attempt::tests::who_waits_for_an_endpoint_that_is_ejected_stays_while_no_other_try_is_paid_for";
        "the wait for the first endpoint takes none of the call's time":
            "request.context.begun = Instant::now();" => "()",
            "layer::attempt::tests::who_has_waited_for_the_first_endpoint_has_so_much_less_time_left";
    }
    "request.rs" {
        "the next hop has as much time as we had":
            "self.context.deadline.forward(now)" => "Some(std::time::Duration::from_secs(15))",
            "layer::attempt::tests::the_next_hop_is_told_what_is_left_and_not_asked_when_nothing_is";
    }
    "http.rs" {
        "an app cannot say how much its calls matter":
            "head.headers.get(&head::CRITICALITY).filter(|_| outbound)" => "None::<&http::HeaderValue>",
            "http::tests::an_app_says_how_much_its_calls_matter_and_a_stranger_says_it_of_nobody";
        "an upgraded connection is in flight until its head":
            "response.body_mut().goes_on()" => "{ drop(response.body_mut().goes_on()); None }",
            "http::tests::an_upgraded_connection_is_a_call_in_flight_until_it_ends";
    }
    "layer/doomed.rs" {
        "who waited for a place is told what time it had before":
            "request.tell_deadline(now);" => "()",
            "layer::doomed::tests::who_waited_for_a_place_is_told_what_time_is_left";
        "work begins that cannot end in time":
            "!left.is_zero() && left >= typical" => "true",
            "layer::doomed::tests::what_cannot_be_answered_in_time_does_not_begin_and_may_be_tried_elsewhere";
    }
    "layer/inherit.rs" {
        "a copy takes over the time and the tier of its call":
            "request.context.is_copy" => "false",
            "layer::inherit::tests::a_copy_inherits_neither_time_nor_tier";
        "what a call inherits counts more than what the app says of it":
            "context.says_tier" => "false",
            "layer::inherit::tests::what_the_app_says_of_its_call_counts_more_than_what_it_inherits";
        "strangers are believed":
            "context.caller.is_none() || context.upgrade" => "context.upgrade",
            "layer::inherit::tests::a_stranger_leaves_nothing_to_anybody";
        "calls because of a retry are not known to be that":
            "context.is_retry |= inherited.is_retry;" => "()",
            "layer::inherit::tests::a_route_without_a_deadline_inherits_none_but_still_that_it_is_a_retry";
    }
    "layer/priority.rs" {
        "a rule for one identity applies to who has none":
            "self.identity.as_ref().is_none_or(is_caller)" =>
            "context.caller.is_none() || self.identity.as_ref().is_none_or(is_caller)",
            "layer::priority::tests::the_first_rule_of_which_all_holds_decides_and_strangers_have_no_identity";
    }
    "layer/limit.rs" {
        "the limit leaks a place when its owner leaves in the very moment of its turn":
            "state.policy.abandon(self.id) == Abandoned::Granted" =>
            "{ let _ = state.policy.abandon(self.id); false }",
            "layer::limit::tests::who_leaves_in_the_very_moment_of_its_turn_passes_the_place_on";
        "who gives up before its turn gives back a place that it never had":
            "state.policy.abandon(self.id) == Abandoned::Granted" =>
            "{ let _ = state.policy.abandon(self.id); true }",
            "layer::limit::tests::who_gives_up_before_its_turn_takes_no_place_from_anybody";
        "a limit that only observes lets people wait":
            "state.mode == Mode::Observe" => "false",
            "layer::limit::tests::a_limit_that_observes_lets_everybody_in_and_counts_whom_it_would_not_have";
    }
    "layer/admission.rs" {
        "an upgraded connection gives its place back with the head of its answer":
            "response.status() == StatusCode::SWITCHING_PROTOCOLS" => "false",
            "layer::admission::tests::an_upgraded_connection_is_a_stream_for_as_long_as_it_lasts_and_one_that_is_refused_is_not";
        "a place is lost that is handed to one who has just gone":
            "drop(decision.who.send(verdict));" => "std::mem::forget(decision.who.send(verdict));",
            "layer::admission::tests::who_leaves_between_the_verdict_and_the_word_of_it_gives_the_place_back";
        "who gives up stays in the queue":
            "self.give_up(None);" => "()",
            "layer::admission::tests::who_leaves_the_queue_leaves_room_in_it";
        "an app that has room again is saturated for good":
            "load.queued > 0 || load.counts.saturated > before" => "load.counts.saturated >= before",
            "layer::admission::tests::that_there_is_no_room_is_told_once_and_that_there_is_again";
    }
    "layer/rate_limit.rs" {
        "a stranger is who its headers say":
            "request.context.caller.as_deref().hash(&mut hasher)" =>
            "request.head.headers.get(\"x-forwarded-client-cert\").hash(&mut hasher)",
            "layer::rate_limit::tests::who_has_not_proven_who_it_is_shares_one_limit_whatever_it_says";
    }
    "layer/throttle.rs" {
        "every failure is taken for overload":
            "response.headers().contains_key(&head::OVERLOAD)" => "true",
            "layer::throttle::tests::only_what_a_sidecar_has_marked_is_taken_for_overload";
        "each call that is dropped is news":
            "reported.episode.observe(throttles, now)?" => "throttles.then_some(Change::Began)?",
            "layer::throttle::tests::that_it_drops_calls_is_told_once_and_that_it_no_longer_does";
    }
    "layer/load.rs" {
        "strangers are told how busy the app is":
            "meshed.then(|| self.admission.clone())" => "Some(self.admission.clone())",
            "layer::load::tests::a_caller_of_the_mesh_hears_of_a_busy_app_and_a_stranger_nothing";
    }
    "layer/observe.rs" {
        "what a policy refused passes for cancelled":
            "Outcome::Failure(Fault::Overload)" => "outcome",
            "layer::observe::tests::what_a_policy_refused_is_a_failure_to_the_caller_and_says_why";
        "a request that was retried is not kept":
            "recorder::has_notes(key)" => "false",
            "layer::observe::tests::a_good_answer_is_kept_with_its_tries_when_it_took_several_and_not_otherwise";
    }
    "layer/stale.rs" {
        "what has gone since is given again":
            "terms.is_none() && Terms::outdate(head.status, &head.headers)" => "false",
            "layer::fallback::tests::a_page_of_which_a_later_answer_says_that_it_is_gone_or_secret_is_not_given_again";
        "what was read before it was written to is given again":
            "shared.change(|stale| stale.forget(&self.url, now));" => "()",
            "layer::fallback::tests::a_page_that_was_cut_is_too_long_or_was_written_to_is_not_given_again";
        "every answer of the app that is no success is covered up":
            "matches!(status.as_u16(), 500 | 502..=504)" => "status.as_u16() >= 400",
            "layer::fallback::tests::a_page_that_has_passed_whole_is_given_again_with_its_age_and_marked";
    }
    "layer/alternate.rs" {
        "another service is asked when it is too late":
            "spare.context.deadline.is_over(now)" => "false",
            "layer::fallback::tests::an_alternate_that_fails_too_changes_nothing_and_nobody_is_asked_too_late";
    }
    "layer/fallback.rs" {
        "a call that fails behind its head is not asked of the alternate":
            "says_status(response).contains_key(&head::GRPC_STATUS)" => "headers.contains_key(&head::GRPC_STATUS)",
            "layer::retry::tests::trailers::what_fails_behind_its_head_is_asked_of_an_alternate";
        "what was shed is thought to have been done":
            "is_shed || headers.contains_key(&head::UNPROCESSED)" => "headers.contains_key(&head::UNPROCESSED)",
            "layer::fallback::tests::what_may_have_been_done_is_not_done_by_somebody_else_as_well";
        "who is above a rate limit is served by another":
            "is_over_quota(response)" => "false",
            "layer::fallback::tests::who_is_above_a_rate_limit_is_told_so";
        "what may have been done is done by another service as well":
            "!spare.is_idempotent() && !reached_nobody" => "false",
            "layer::fallback::tests::what_may_have_been_done_is_not_done_by_somebody_else_as_well";
        "what a rule may have had answered is done by another service as well":
            "!self.context.terms.as_deref().is_some_and(by_rule)" => "{ let _ = by_rule; true }",
            "layer::fallback::tests::a_post_that_a_rule_may_have_tried_again_is_made_nowhere_else";
        "who stands in for another has somebody who stands in for him":
            "request.context.stands_in" => "false",
            "layer::fallback::tests::who_stands_in_for_another_has_nobody_who_stands_in_for_him";
        "what the caller did wrong is covered up":
            "facts.blame != Blame::Downstream" => "true",
            "layer::fallback::tests::what_the_caller_did_wrong_and_what_the_app_itself_answered_are_not_covered_up";
    }
    "layer/fault.rs" {
        "a black hole swallows any number of calls":
            "self.held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX" => "{ self.held.fetch_add(1, Ordering::Relaxed); false }",
            "layer::fault::tests::no_more_calls_are_held_than_may_be_and_the_others_pass";
        "who is held hears nothing of a policy that is gone":
            "!self.shared.faults.load().has(&self.fault)" => "false",
            "layer::fault::tests::who_is_held_is_let_go_when_the_fault_ends_or_nobody_says_so_any_more";
    }
    "layer/authorize.rs" {
        "a connection on which nobody asks again keeps a right that is taken away":
            "self.changed.send_replace(());" => "()",
            "layer::authorize::tests::connections_on_which_nobody_asks_again_end_with_the_right_to_them";
        "a caller is who its headers say":
            "context.caller.clone()" =>
            "request.head.headers.get(\"x-weir-caller\").and_then(|said| said.to_str().ok()).map(Into::into)",
            "layer::authorize::tests::who_may_not_call_is_told_so_in_its_own_protocol_and_headers_prove_nothing";
    }
    "layer/authorize/right.rs" {
        "a call that has lost its right goes on for twice as long":
            "timeout_at(end, self.policy_changes())" => "timeout_at(end + grace, self.policy_changes())",
            "layer::authorize::tests::a_call_that_loses_its_right_may_end_and_is_cut_when_it_does_not";
        "a call that has got its right back is cut all the same":
            "continue 'granted" => "()",
            "layer::authorize::tests::a_call_that_loses_its_right_may_end_and_is_cut_when_it_does_not";
    }
    "layer/dispatch.rs" {
        "a redirect is temporary, whatever the rule says":
            "Own::Redirect(redirect.status(), location)" => "Own::Redirect(http::StatusCode::FOUND, location)",
            "layer::dispatch::tests::a_redirect_calls_nobody";
        "what no rule is for goes where the first says":
            "found.and_then(|place| self.acts.get(place))" => "self.acts.get(found.unwrap_or(0))",
            "layer::dispatch::tests::what_no_rule_matches_is_404_and_what_has_no_backend_is_500";
    }
    "layer/mirror.rs" {
        "a copy may be retried by whoever gets it":
            "context.is_retry = true" => "()",
            "layer::dispatch::tests::copies::a_copy_has_the_body_too_and_neither_delays_its_call_nor_fails_it";
        "all calls are copied":
            "random % self.denominator >= self.numerator" => "false",
            "layer::dispatch::tests::copies::a_share_of_none_copies_nothing";
    }
    "layer/deadline.rs" {
        "the deadline of a policy holds beside that of a rule":
            "self.limit.filter(|_| !by_rule)" => "self.limit",
            "layer::dispatch::tests::a_timeout_of_the_rule_takes_the_place_of_the_policys";
    }
    "layer/retry.rs" {
        "a code that a rule names is worth no other try":
            "return Some(Verdict::Named)" => "return Some(Verdict::Final)",
            "layer::dispatch::tests::a_code_that_the_rule_names_is_tried_again_whatever_the_method_and_no_other_is";
    }
    "endpoints/chosen.rs" {
        "who sends calls away looks idle":
            "headers.contains_key(&head::OVERLOAD).then_some(1.0)" => "Some(0.0)",
            "endpoints::chosen::tests::who_sends_calls_away_is_as_busy_as_there_is";
    }
    "learnt.rs" {
        "a probe that meets a rate limit keeps an endpoint out":
            "match end.over_quota {\n                true => Outcome::Success,\n                false => end.outcome,\n            }" => "end.outcome",
            "learnt::tests::a_probe_that_meets_a_rate_limit_has_found_the_endpoint_well";
    }
    "endpoint.rs" {
        "a stream above the last of a GOAWAY with a reason was processed":
            "refused || error.is_go_away()" => "refused",
            "endpoint::tests::a_stream_above_the_last_of_a_goaway_was_not_processed_whatever_the_reason";
    }
    "layer/breaker.rs" {
        "what the sidecar refuses itself opens the breaker":
            "self.own = error.facts().blame == Blame::Proxy" => "()",
            "layer::breaker::tests::what_this_sidecar_refuses_is_no_word_about_the_service";
    }
    "mesh.rs" {
        "a limit that somebody wrote refuses where the policy only observes":
            "admission.set_mode(policy.mode)" => "()",
            "mesh::tests::a_new_policy_that_only_observes_refuses_nobody_any_more";
        "connections that are open are refused by the mode of before":
            "before.doomed.reconfigure(policy.mode)" => "()",
            "mesh::tests::a_new_policy_that_only_observes_refuses_nobody_any_more";
    }
    "policy/admission/streams.rs" {
        "streams are refused where the policy only observes":
            "if !self.observes {\n                return refused;\n            }" => "return refused",
            "policy::admission::tests::a_policy_that_observes_refuses_nobody_and_counts_whom_it_would_have";
    }
};
