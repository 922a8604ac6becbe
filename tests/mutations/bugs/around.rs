//! What the layers rest on: endpoints, messages, identity, the kernel.

use crate::Bug;
use crate::bugs::bugs;

#[rustfmt::skip]
pub(crate) const BUGS: &[Bug] = bugs! {
    "discovery.rs" {
        "more is told than the control plane takes":
            "bytes > TOLD_BYTES_MAX" => "false",
            "discovery::tests::of_more_than_a_message_holds_the_newest_are_told";
    }
    "telemetry/backend.rs" {
        "what an endpoint did is counted after it is gone":
            "transitions.remove(endpoint).unwrap_or_default()" => "HashSet::<[&'static str; 2]>::new()",
            "telemetry::backend::tests::what_an_endpoint_did_and_why_is_counted_for_as_long_as_it_is_there";
    }
    "router.rs" {
        "an escape hides a path":
            "form.and_then(|form| String::from_utf8(form.into_owned()).ok())" => "form.and(None::<String>)",
            "router::tests::a_path_is_what_it_decodes_to";
    }
    "http.rs" {
        "a GET is gRPC because it says so":
            "incoming.method() == Method::POST" => "true",
            "http::tests::what_says_that_it_is_grpc_and_is_no_post_is_not";
        "who does not wait for the answer has done wrong":
            "patience.is_asked()" => "false",
            "http::tests::a_caller_that_hangs_up_ends_its_call_and_has_done_no_wrong";
    }
    "head.rs" {
        "HTTP/2 has no host":
            "head.uri.authority().filter(|_| in_uri)" => "head.uri.authority().filter(|_| in_uri && false)",
            "layer::rate_limit::tests::headers_and_methods_are_told_apart";
        "a target without a path is taken for whole":
            "head.method == Method::CONNECT" => "true",
            "head::tests::a_target_without_a_path_is_refused";
        "requests follow in HTTP/2 that no policy sees":
            "!tokens(headers, &UPGRADE).any(carries_requests)" => "true",
            "head::tests::an_upgrade_to_another_http_is_none_and_nothing_that_asks_for_it_goes_on";
        "of two names the one counts that the target does not say":
            "host.as_bytes() != authority.as_str().as_bytes()" => "head.version == Version::HTTP_2 && host != authority.as_str()",
            "head::tests::an_authority_in_the_target_takes_the_place_of_another_host";
        "a target that names somebody is as good as a Host":
            "head.version == Version::HTTP_11" => "head.version == Version::HTTP_11 && head.uri.authority().is_none()",
            "head::tests::http_1_1_without_a_host_is_refused_whatever_its_target_is";
    }
    "shares.rs" {
        "one address has all the places":
            "Semaphore::new(self.each)" => "Semaphore::new(1000)",
            "shares::tests::who_takes_all_that_it_can_get_leaves_the_others_their_places";
        "who is above the share of its address waits among everybody":
            "user.places.clone().acquire_owned().await" => "self.everybodys.clone().acquire_owned().await",
            "shares::tests::who_waits_for_its_own_address_keeps_nobody_else_waiting";
        "addresses are remembered for ever":
            "known.remove(&self.address);" => "()",
            "shares::tests::an_address_that_has_left_is_forgotten";
    }
    "admin/door.rs" {
        "one peer holds all connections of the admin port":
            "PEER_CONNECTIONS_MAX + probes" => "2 * CONNECTIONS_MAX",
            "admin::door::tests::who_holds_all_connections_that_it_can_get_keeps_no_probe_waiting";
        "who does not read its answer keeps its connection":
            "tokio::time::sleep(WRITE_TIMEOUT).await" => "std::future::pending::<()>().await",
            "admin::door::tests::who_does_not_read_its_answer_is_cut";
    }
    "prober/hooks.rs" {
        "a hook runs as often at once as somebody calls it":
            "asking.peek().is_none()" => "asking.peek().is_some()",
            "prober::tests::a_hook_runs_once_at_a_time_and_goes_on_for_who_came_second";
    }
    "listener/places.rs" {
        "strangers take the places of the app's own calls":
            "Some(self.inbound.try_take(from)?)" => "None",
            "listener::places::tests::strangers_leave_the_apps_own_calls_a_quarter";
        "one address takes the places of all strangers":
            "Shares::new(inbound_max, each_max)" => "Shares::new(inbound_max, inbound_max)",
            "listener::places::tests::one_address_leaves_the_others_their_places";
    }
    "connection/first_bytes.rs" {
        "what is not HTTP passes where HTTP is spoken":
            "not_http && matches!(expected, Expected::Http | Expected::Http2)" => "false",
            "connection::inbound::tests::bytes_of_a_proven_peer_do_not_pass_on_a_port_that_speaks_http";
    }
    "connection/inbound.rs" {
        "who is to prove itself is a stranger after 50 ms":
            "self.port.authorization().admits_bytes_of_anybody()" => "true",
            "connection::inbound::tests::who_proves_itself_late_is_heard_and_a_stranger_reaches_nobody";
        "a proven peer's word that it sends bytes is enough":
            "first_bytes::read(stream, Expected::on(declared), &mut self.drain).await?" => "return self.carry(stream, Bytes::new(), Some(caller)).await",
            "connection::inbound::tests::bytes_of_a_proven_peer_do_not_pass_on_a_port_that_speaks_http";
        "a request is bytes where nothing is said of the port":
            "self.late(stream, Some(&caller)).await?" => "return self.carry(stream, Bytes::new(), Some(caller)).await",
            "connection::inbound::tests::a_request_that_a_proven_peer_sends_as_bytes_is_a_request";
    }
    "question.rs" {
        "no answer is one":
            "answered.unwrap_or(false)" => "answered.unwrap_or(true)",
            "question::tests::an_app_that_hangs_is_not";
        "a sidecar answers for its app":
            "!headers.contains_key(&head::UNPROCESSED)" => "true",
            "question::tests::by_way_of_its_sidecar_the_app_counts_and_not_the_sidecar";
    }
    "balance.rs" {
        "the first of the two is taken, whatever it costs":
            "b.1.cost.total_cmp(&a.1.cost).is_lt()" => "false",
            "balance::tests::the_dearest_of_many_gets_nothing_and_the_cheapest_does_not_get_all";
        "an endpoint that is being spared wins whenever it is cheaper":
            "cheap_anyway || rng.f64() * dear.1.weight < cheap.1.weight" => "true",
            "balance::tests::an_endpoint_in_slow_start_gets_its_share_even_when_all_are_idle";
        "weights are ignored when all are idle":
            "rng.f64() < self.share(index)" => "true",
            "balance::tests::shares_hold_when_all_are_idle_and_when_all_are_busy";
        "a zone is never left":
            "near.1.weighted() > FAR_FACTOR * far.1.weighted_beside(&near.1)" => "false",
            "balance::tests::calls_stay_in_their_zone_until_it_is_one_and_a_half_times_as_loaded";
        "in a panic everything goes to those that fail":
            "spill.weighted() < load.weighted()" => "true",
            "balance::tests::in_a_panic_the_gated_help_in_proportion_and_only_when_it_is_cheaper";
        "in a panic the gated do not help":
            "self.size <= DRAWS_MAX" => "return None",
            "balance::tests::in_a_panic_the_less_penalised_of_those_that_fail_helps_more";
    }
    "balance/load.rs" {
        "who is far away looks better the longer it is left alone":
            "self.cost.max(least) / self.weight" => "self.cost / self.weight",
            "endpoints::tests::choice::rare_calls_stay_in_their_zone_as_well";
    }
    "push.rs" {
        "every port that an app dials makes series of its own":
            "known.len() < DIRECT_PORTS_MAX" => "true",
            "push::tests::an_app_that_dials_thousands_of_ports_makes_no_series_for_each";
        "a service that is gone looks open for ever":
            "gone.say_goodbye();" => "()",
            "mesh::tests::a_service_that_is_gone_does_not_look_open_for_ever";
    }
    "endpoints/members.rs" {
        "gated endpoints count as part of the aperture":
            "member.is_eligible() && !member.is_draining()" => "true",
            "endpoints::tests::reach::of_a_large_pool_twenty_endpoints_are_called_and_others_take_the_place_of_those_that_fail";
        "all sidecars call the same part":
            "ring::rank(own, member.address().to_string().as_bytes())" => "ring::rank(0, member.address().to_string().as_bytes())",
            "endpoints::tests::reach::every_sidecar_calls_a_part_of_its_own_and_keeps_it_when_endpoints_come_and_go";
    }
    "affinity.rs" {
        "all paths are one key":
            "ring::hash(head?.uri.path().as_bytes())" => "ring::hash(b\"/\")",
            "affinity::tests::calls_are_told_apart_by_the_header_the_cookie_or_the_path_that_the_policy_names";
    }
    "pool.rs" {
        "a connection that leads nowhere is used for as long as TCP hopes":
            "connection.streams.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX" => "false",
            "pool::tests::a_connection_on_which_three_requests_in_a_row_were_given_up_gets_no_more";
        "each three requests that are given up cost a handshake":
            "now.saturating_duration_since(retired) >= RETIRE_EVERY" => "true",
            "pool::tests::where_all_that_is_asked_comes_too_late_there_is_a_handshake_a_second_at_most";
    }
    "endpoints.rs" {
        "opaque connections have no cap":
            "before < self.config.load().connections_max" => "true",
            "endpoints::tests::opaque_connections_leave_calls_their_places_and_have_a_cap_of_their_own";
    }
    "endpoints/discovered.rs" {
        "a new pod inherits what was learnt of the one that had its address":
            "member.endpoint.identity == self.identity && member.pod == self.pod" => "member.endpoint.identity == self.identity",
            "endpoints::tests::gates::a_new_pod_at_the_address_of_an_old_one_begins_anew";
        "nobody hears that a pod is gone of which another has the address":
            "now.is_some_and(|now| Arc::ptr_eq(now, member))" => "now.is_some()",
            "endpoints::tests::gates::a_new_pod_at_the_address_of_an_old_one_begins_anew";
        "an endpoint that is named again is another one":
            "described.is_of(member)" => "false",
            "backend::tests::a_new_policy_keeps_gates_latencies_hedges_and_connections";
    }
    "endpoints/gates.rs" {
        "two workers open two gates where one may be":
            "staying().filter(|member| !member.is_eligible()).count() < cap" => "true",
            "endpoints::tests::workers_that_open_gates_at_the_same_moment_do_not_exceed_the_cap";
        "who is going away is one of those that are left":
            "!member.is_draining()" => "true",
            "endpoints::tests::gates::the_last_that_stays_is_not_ejected_while_others_are_going_away";
        "an endpoint that discovery took away is ejected once more":
            "!self.lists(member)" => "false",
            "endpoints::tests::what_fails_after_discovery_took_an_endpoint_away_does_not_eject_it_once_more";
        "who waits for an endpoint that is ejected goes on waiting":
            "before.eligible && !now.eligible" => "false",
            "layer::attempt::tests::who_waits_for_an_endpoint_that_is_ejected_hears_of_it_if_it_may_go_elsewhere";
        "who has come as a probe goes on waiting when its endpoint is out again":
            "learnt.gate.state() == Phase::Open" => "false",
            "endpoints::tests::gates::who_probes_an_endpoint_that_hangs_is_told_when_it_is_out_again";
    }
    "request.rs" {
        "another try could follow whose body is gone":
            "!replay.is_possible()" => "false",
            "layer::attempt::tests::a_try_that_no_other_can_follow_has_all_of_the_time";
    }
    "body/watch.rs" {
        "a gRPC call that says no status went well":
            "watch.grpc && leaves_unsaid(response)" => "false",
            "body::tests::a_grpc_call_that_ends_without_a_status_has_failed";
        "that a caller had too little time is held against the endpoint":
            "headers.get(&PROXY_ERROR).is_some_and(in_callers_time)" => "false",
            "body::watch::tests::that_a_caller_had_too_little_time_is_not_held_against_an_endpoint";
    }
    "endpoints/choice.rs" {
        "who only observes refuses a place at an endpoint":
            "head.is_some() && !observes" => "head.is_some()",
            "endpoints::tests::gates::a_policy_that_observes_refuses_nobody_a_place_at_an_endpoint";
    }
    "endpoints/chosen.rs" {
        "that this sidecar has no certificate is held against endpoints":
            "error.outcome() == HARD" => "true",
            "endpoints::tests::gates::that_this_sidecar_has_no_certificate_is_no_endpoints_failure";
    }
    "learnt/waiting.rs" {
        "one that waits for an hour keeps a place for all that came after it":
            "self.compact();" => "()",
            "learnt::waiting::tests::one_that_waits_for_an_hour_does_not_keep_what_came_after_it_and_has_ended";
    }
    "learnt.rs" {
        "nothing is silent in a pool that nobody has called lately":
            "pool_p99.unwrap_or(Duration::MAX)" => "pool_p99?",
            "learnt::tests::of_a_pool_that_nobody_has_called_lately_what_a_try_may_take_tells_what_is_silence";
        "one silent call is proof enough":
            "context.is_some_and(|context| context.is_telling(now))" => "context.is_some()",
            "learnt::tests::the_silence_of_three_with_a_deadline_is_a_stall_and_any_other_is_to_be_asked_about";
        "a slow call at an endpoint that is awake counts as silence":
            "self.waiting.forget(Duration::ZERO, now)" => "drop(now)",
            "learnt::tests::an_endpoint_that_is_awake_when_it_is_asked_is_silent_for_new_calls_only";
        "the gate does not hear that a stream has begun":
            "self.gate.answered(&call.ticket);" => "()",
            "endpoints::tests::gates::an_endpoint_that_only_ever_gets_streams_is_taken_back";
        "an opaque connection is no probe that succeeded":
            "self.gate.state() == Phase::HalfOpen" => "false",
            "endpoints::tests::gates::an_endpoint_that_only_ever_gets_opaque_connections_is_taken_back";
        "however many wait for a silent endpoint, it costs no more than one does":
            "quiet_for * self.waiting.count.min(WAITING_MAX)" => "quiet_for",
            "learnt::tests::silence_costs_as_much_as_the_answer_would_that_does_not_come";
        "what an endpoint says of itself does not count":
            "self.load.factor(now)" => "1.0",
            "endpoints::tests::choice::an_endpoint_that_says_it_is_busy_is_spared_until_it_says_otherwise_or_nothing";
    }
    "replay.rs" {
        "a committed body keeps what has been read":
            "self.besides > 0" => "true",
            "replay::tests::a_committed_body_keeps_only_what_its_reader_has_still_to_read";
        "bodies are kept however long they are":
            "self.kept_bytes + size <= REQUEST_BYTES_MAX" => "true",
            "replay::tests::what_outgrows_its_bound_is_kept_no_longer_and_still_passes_whole";
        "a try that was given up reads on":
            "shared.newest != *number" => "false",
            "replay::tests::an_attempt_that_was_given_up_takes_nothing_from_the_one_after_it";
    }
    "member.rs" {
        "who begins to listen when its endpoint has just been ejected waits":
            "!was_eligible || self.is_eligible()" => "true",
            "layer::attempt::tests::an_endpoint_that_is_ejected_before_anybody_listens_is_left_all_the_same";
    }
    "exchange.rs" {
        "a deadline does not end an answer that nobody reads":
            "self.body.poll_cut(cx).is_pending()" => "true",
            "http2::tests::a_deadline_ends_an_answer_that_nobody_reads";
        "what comes behind small frames is lost":
            "self.behind = Some(frame)" => "drop(frame)",
            "exchange::tests::a_large_frame_keeps_its_place_and_is_not_copied_together";
        "each small frame goes by itself":
            "first.len() >= SMALL" => "true",
            "exchange::tests::small_frames_that_are_there_at_once_go_as_one";
        "a call's head and body go in two writes":
            "std::mem::take(&mut self.is_fresh)" => "false",
            "exchange::tests::a_call_goes_as_one_write_with_its_body";
        "half a body is taken for a whole one":
            "Poll::Ready(Some(Err(error.into())))" => "{ drop(error); Poll::Ready(None) }",
            "exchange::tests::a_reset_behind_small_frames_is_passed_on_with_its_reason";
    }
    "http2.rs" {
        "a refusal of a HEAD has a body":
            "is_head || body.is_end_stream()" => "body.is_end_stream()",
            "http2::tests::a_refusal_of_a_head_has_no_body";
    }
    "ahead.rs" {
        "a socket of which more was read than asked for is given away":
            "self.piece.is_none() && self.prefix.is_empty()" => "true",
            "ahead::tests::a_socket_of_which_something_was_read_is_not_given_away";
        "a large message is read in small pieces":
            "this.is_behind = room > 0 && buf.remaining() == 0;" => "",
            "ahead::tests::a_large_message_takes_few_reads_however_small_the_readers_buffer_is";
        "what was read ahead and not asked for at once is lost":
            "(!piece.is_empty()).then_some(piece)" => "None::<Piece>",
            "ahead::tests::every_byte_comes_once_and_in_order_whatever_the_sizes";
        "small messages are copied by way of a piece, too":
            "!this.is_behind || room >= PIECE_BYTES" => "false",
            "ahead::tests::a_small_message_is_read_straight_to_where_it_is_wanted";
    }
    "piece.rs" {
        "what a socket did not take is lost":
            "self.taken += written" => "{ let _ = written; self.taken = self.filled }",
            "gather::tests::a_socket_that_blocks_gets_everything_once_and_in_order";
    }
    "tcp/copy.rs" {
        "each record is written by itself":
            "continue" => "()",
            "tcp::tests::peers::one_write_takes_all_records_that_are_there";
        "a peer that failed looks as if it had said all":
            "self.broken = Some(error)" => "{ drop(error); self.at_eof = true }",
            "tcp::tests::peers::records_that_are_there_go_before_the_error_behind_them";
    }
    "gather.rs" {
        "a frame waits for what never comes":
            "std::mem::take(&mut this.is_followed)" => "!matches!(this.held, None)",
            "gather::tests::the_flush_that_follows_writes";
        "each frame is written by itself":
            "bufs.len() > 1 && length <= PIECE_BYTES" => "false",
            "gather::tests::head_message_and_trailers_go_as_one_write";
        "what no flush followed stays for ever":
            "this.held.is_some()" => "false",
            "gather::tests::what_no_flush_followed_goes_with_the_next_read_and_with_the_end";
    }
    "trace.rs" {
        "of two traceparents the first counts":
            "values.next().is_none().then_some(first.as_bytes())" => "Some(first.as_bytes())",
            "trace::tests::two_traceparents_mean_nothing";
    }
    "pool.rs" {
        "the kernel takes in megabytes of an answer that nobody reads":
            "socket::bound_answers(&stream)" => "std::io::Result::Ok(())",
            "http1::tests::an_answer_that_nobody_reads_fills_no_more_than_a_stream_of_http2";
    }
    "head/kept.rs" {
        "of two fields with one name the second attempt has one":
            "head.headers.append(name, value);" => "drop(head.headers.insert(name, value));",
            "head::kept::tests::what_is_made_from_it_is_what_was_kept";
        "what must not be compressed may be in the second attempt":
            "value.set_sensitive(sensitive);" => "()",
            "head::kept::tests::what_is_made_from_it_is_what_was_kept";
    }
    "http1/download.rs" {
        "a few bytes that somebody keeps hold the buffer of a large answer before them":
            "self.is_small = false;" => "()",
            "http1::tests::who_waits_has_no_buffer_and_only_what_was_small_leaves_its_own_to_the_next";
    }
    "http1.rs" {
        "who waits for an answer has a buffer for it":
            "ready!(reader.as_ref().poll_read_ready(cx))?;" => "()",
            "http1::tests::who_waits_has_no_buffer_and_only_what_was_small_leaves_its_own_to_the_next";
        "an app that is still answering is told that its caller has ended":
            "writer.forget()" => "drop(writer)",
            "http1::tests::an_app_that_is_still_answering_is_not_told_that_its_caller_has_ended";
        "what an app had read before it went is sent to another":
            "socket::lacks_last(reader.as_ref(), written)" => "true",
            "http1::tests::what_came_after_the_peer_had_closed_is_unsent_and_what_came_before_is_not";
        "a request that no app can have read is lost":
            "incoming.bytes.is_empty()" => "false",
            "http1::tests::what_came_after_the_peer_had_closed_is_unsent_and_what_came_before_is_not";
    }
    "socket/acknowledged.rs" {
        "the SYN is taken for a byte that was sent":
            "info.tcpi_bytes_acked.saturating_sub(1)" => "info.tcpi_bytes_acked",
            "http1::tests::what_came_after_the_peer_had_closed_is_unsent_and_what_came_before_is_not";
    }
    "prober.rs" {
        "the kubelet need not wait for callers to leave":
            "tokio::time::sleep(*pause).await" => "()",
            "prober::tests::a_hook_that_asks_nobody_takes_its_time_for_each_who_calls_it";
    }
    "mentions.rs" {
        "a caller's deadline is overlooked":
            "found.timeout = true" => "()",
            "mentions::tests::each_header_that_is_read_is_seen_and_ordinary_ones_are_not";
    }
    "recorder.rs" {
        "of copies, of which nobody tells, is noted what befell them":
            "key == Key::default()" => "false",
            "recorder::tests::of_a_copy_of_which_nobody_tells_nothing_is_noted";
        "refusals push out what failed otherwise":
            "(taken & 0xff < most).then_some(taken + 1)" => "Some(taken + 1)",
            "recorder::tests::what_failed_stays_to_be_explained_while_thousands_are_refused";
        "notes stay after their request has ended":
            "open.remove(&names.key).unwrap_or_default()" => "open.get(&names.key).cloned().unwrap_or_default()",
            "recorder::tests::what_was_noted_on_the_way_is_told_with_the_end_by_id_and_by_trace";
        "records are counted and not weighed":
            "self.records.len() > count_max || self.bytes > bytes_max" => "self.records.len() > count_max",
            "recorder::tests::the_slow_do_not_push_out_the_failed_and_nobody_makes_it_grow";
    }
    "prober/https.rs" {
        "an app is asked to prove who it is":
            "Ok(ServerCertVerified::assertion())" => "Err(rustls::CertificateError::UnknownIssuer.into())",
            "prober::tests::an_https_probe_believes_whoever_answers";
    }
    "body.rs" {
        "whoever does not read its answer may go on sending":
            "right.poll_passing(cx)" => "Poll::<Error>::Pending",
            "layer::authorize::tests::what_is_sent_ends_with_the_right_to_send_it_whether_or_not_the_answer_is_read";
        "an answer on which nothing passes is not cut":
            "right.poll_waiting(cx)" => "Poll::<Error>::Pending",
            "layer::authorize::tests::an_answer_that_goes_on_is_cut_in_its_own_protocol_and_an_audit_cuts_none";
    }
    "backend.rs" {
        "copies have no places of their own":
            "in_flight >= MIRRORED_MAX" => "false",
            "layer::dispatch::tests::copies::no_more_than_64_copies_are_under_way_and_the_rest_is_left_out_and_counted";
    }
    "backend/stacks.rs" {
        "a breaker that a policy has no more looks open for ever":
            "gone.reconfigure(None, snapshot::Mode::default());" => "()",
            "backend::tests::a_breaker_that_a_new_policy_has_no_more_does_not_look_open_for_ever";
        "a new policy begins with new breakers":
            "breakers\n                .remove(name)" => "None::<Arc<breaker::Shared>>",
            "backend::tests::a_new_policy_keeps_breakers_open_and_what_retries_have_spent";
        "a new policy begins with new hedges":
            "hedges.remove(name)" => "None",
            "backend::tests::a_new_policy_keeps_gates_latencies_hedges_and_connections";
    }
    "rules.rs" {
        "routes may hold any number of patterns":
            "patterns > PATTERNS_MAX" => "false",
            "rules::tests::more_patterns_than_a_sidecar_is_to_hold_are_refused";
        "the last match applies":
            "conditions.find(|it| it.matches(head, path, grpc))" =>
            "conditions.rfind(|it| it.matches(head, path, grpc))",
            "rules::tests::the_first_that_matches_applies";
        "weights do not count":
            "left.checked_sub(weight)" => "left.checked_sub(weight).filter(|_| false)",
            "rules::tests::each_is_picked_as_often_as_its_weight_says";
        "paths are compared as they are sent":
            "path::whole(head.uri.path())" => "Some(Cow::Borrowed(head.uri.path().as_bytes()))",
            "rules::tests::paths_are_compared_in_one_form";
        "an exact path is met with a slash at its end, too":
            "path == Some(wanted)" => "path.map(|it| it.trim_end_matches('/')) == Some(wanted.trim_end_matches('/'))",
            "layer::dispatch::tests::a_redirect_that_adds_a_slash_is_asked_once";
    }
    "mesh.rs" {
        "whoever tries all ports has an admission for each":
            "unnamed() < UNNAMED_MAX" => "true",
            "mesh::tests::a_scan_of_all_ports_costs_a_few_of_them";
        "pods that are called by their addresses are remembered for ever":
            "backends.remove(&of_pod(*address));" => "()",
            "mesh::tests::a_pod_that_has_long_not_been_called_is_forgotten_with_all_that_was_learnt_of_it";
        "a new policy begins with full buckets":
            "made.standing.clone()" => "{ let new = Standing::default(); new.reconfigure(policy); new }",
            "mesh::tests::a_new_policy_keeps_the_buckets_and_who_is_in_the_app";
        "connections that are open keep a right that is taken away":
            "standing.reconfigure(policy_of(&workload, *port))" => "()",
            "mesh::tests::a_new_policy_that_takes_a_right_away_holds_for_connections_that_are_open";
        "a new policy does not know who is in the app":
            "before.admission.clone()" => "Arc::new(admission::Shared::new(&policy.limits))",
            "mesh::tests::a_new_policy_keeps_the_buckets_and_who_is_in_the_app";
    }
    "cni/plugin.rs" {
        "a pod starts although its rules could not be written":
            "redirection.install(&namespace).map_err(not_redirected)?" => "drop(redirection.install(&namespace))",
            "cni::plugin::tests::a_pod_of_ours_is_not_passed_unless_its_rules_are_written";
        "a pod of which nobody can be asked is none of ours":
            "pod::redirection(&asked(&meant, network)?)" => "asked(&meant, network).map_or(Ok(None), |said| pod::redirection(&said))",
            "cni::plugin::tests::a_pod_of_which_nobody_can_say_whose_it_is_does_not_start";
    }
    "cni/pod.rs" {
        "a pod's name may lead elsewhere at the API server":
            "is_path || !text.bytes().all(is_name)" => "is_path",
            "cni::plugin::tests::names_that_would_lead_elsewhere_at_the_api_server_are_refused";
    }
    "cni/conflist.rs" {
        "our entry comes before the pod has addresses":
            "plugins.push(entry.json())" => "plugins.insert(0, entry.json())",
            "cni::conflist::tests::a_chain_gets_our_entry_as_its_last";
    }
    "cni/node.rs" {
        "what was a single plugin stays a chain":
            "kept.exists() && !single.exists()" => "false",
            "cni::node::tests::a_single_plugin_is_put_back_as_it_was_to_the_byte";
    }
    "cni/repair.rs" {
        "a pod that nobody makes anew is deleted":
            "has_ended && is_owned" => "has_ended",
            "cni::repair::tests::only_a_pod_whose_validator_said_so_and_that_somebody_makes_anew_is_stranded";
    }
    "redirect/table.rs" {
        "a range of ports has no end":
            "after(last)" => "None::<Vec<u8>>",
            "redirect::tests::kernel::the_kernel_is_told_what_nft_would_have_told_it";
    }
    "redirect/wanted.rs" {
        "rules that were changed pass a check":
            "there == wanted" => "true",
            "redirect::tests::kernel::a_pods_rules_are_written_from_outside_and_a_change_of_them_shows";
    }
    "interim.rs" {
        "the deadline of an answer is not looked at while there is no room":
            "timer.as_mut().poll(cx).is_ready()" => "false",
            "interim::tests::an_answer_for_which_there_is_no_room_ends_by_its_deadline_or_after_minutes";
    }
    "memory.rs" {
        "a sidecar that is short of memory begins no call at all":
            "(calls < CALLS_MAX).then_some(calls + 1)" => "None",
            "memory::tests::short_of_it_little_is_done_at_a_time_and_not_nothing";
        "a sidecar with next to no memory takes all connections":
            "open < CONNECTIONS_MAX" => "true",
            "memory::tests::with_next_to_none_few_connections_are_taken";
        "a call's place is kept when it has ended":
            "self.0.calls.fetch_sub(1, Ordering::Relaxed)" => "0",
            "memory::tests::short_of_it_little_is_done_at_a_time_and_not_nothing";
    }
    "standing.rs" {
        "what moves now and then has ended":
            "waiting.moved == moved" => "true",
            "standing::tests::what_stands_for_minutes_has_ended_and_what_moves_now_and_then_has_not";
    }
};
