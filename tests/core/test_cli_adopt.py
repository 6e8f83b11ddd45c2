"""A submit without a gate whose answer was lost: `reconcile` names what may be it, and a user says which one it is."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from orchestration_integrations import AmbiguousRunError, OrchestrationHttpHook, SqliteRunStore, ValidationError
from orchestration_integrations.api.errors import RecordConflictError
from orchestration_integrations.ownership import adopting
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.procedures.content import Content
from orchestration_integrations.procedures.start import CLOCK_SKEW, earliest_of
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked
from tests.outside import eventually

PAYOUT = {
    "name": "payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        }
    ],
}
VARIABLES = ["--var", "merchant=m:1", "--var", "amount=1250"]


class Night:
    """Commands of one user, whose settings are in the environment."""

    def __init__(self, server, hook, folder):
        self.server, self.hook = server, hook
        self.store = SqliteRunStore(folder / "the runs.db")
        self.env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": self.store.path}
        self.workflow_id = hook.create_workflow(PAYOUT).id

    def call(self, *arguments):
        """Status and objects of a command; what it says to people is kept."""
        done = invoked(*arguments, "--json", env=self.env)
        self.said = done.stderr
        return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]

    def follow(self, command):
        """A command that was printed, as it stands."""
        return self.call(*shlex.split(command))

    def lose(self, key="order-17", fault="cut_after", variables=VARIABLES):
        """A submit whose answer is lost; the error."""
        with self.server.fault("run_workflow", fault):
            code, (error,) = self.call("run", "payout", *variables, "--run-key", key, "--first-attempt")
        assert (code, error["error"]) == (3, "AmbiguousRunError")
        return error

    def paid(self):
        """What the merchant has, once nothing is under way."""
        eventually(lambda: all(one.terminated for one in self.hook.list_instances()), "all have ended", every=0.05)
        return self.server.balance("m:1", "EUR/2")

    def other(self, merchant="m:2", amount="5"):
        """A run of somebody else."""
        return self.hook.run_workflow(self.workflow_id, {"merchant": merchant, "amount": amount}).id


@pytest.fixture
def night(tmp_path):
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        yield Night(server, hook, tmp_path)


def adopt_in(text):
    return re.search(r"runs adopt [^;]*?(?=\. Only|$)", text, re.MULTILINE)[0]


@pytest.mark.parametrize(
    "asked", [["--run-key", "order-17"], ["payout"], ["payout", "--run-key", "order-17"]], ids=" ".join
)
@pytest.mark.parametrize("days", ["7", "0"])
def test_the_candidates_are_named_and_the_advice_ends_in_one_payment(night, asked, days):
    night.other()
    mine = night.call("run", "payout", *VARIABLES, "--run-key", "order-16", "--first-attempt")[1][0]["instance_id"]
    before = night.paid()
    night.lose()
    assert night.paid() == before + 1250, "all have ended"
    code, found = night.call("reconcile", *asked, "--days", days)
    (told,) = [one for one in found if one["finding"] == "ambiguous"]
    since = night.store.load("order-17").since
    assert (code, told["run_key"], told["workflow_id"]) == (3, "order-17", night.workflow_id)
    assert len(told["instances"]) == 2, "that of somebody unknown, and the one whose answer was lost"
    assert mine not in told["instances"], "its owner is on record"
    assert since.isoformat(timespec="seconds") in told["reason"], "since the submit, and not a week before it"
    (wanted,) = [
        one
        for one in told["instances"]
        if night.call("instances", "show", one)[1][0]["transactions"][0]["postings"][0]["amount"] == 1250
    ]
    command = adopt_in(told["advice"]).replace("INSTANCE", wanted)
    code, (done,) = night.follow(command)
    assert (code, done["result"], done["state"], done["instance_id"]) == (0, "adopted", "chosen", wanted)
    code, (end,) = night.call("run", "payout", *VARIABLES, "--run-key", "order-17")
    assert (code, end["instance_id"], end["state"]) == (0, wanted, "succeeded")
    assert night.paid() == before + 1250, "it was paid once"
    assert night.call("reconcile", "--run-key", "order-17")[0] == 0, "nothing is to be done"


def test_what_run_prints_works_as_it_stands(night):
    night.lose()
    steps = dict(re.findall(r"^ +(\d)\. (?:.*: )?orchestration-integrations (.*)$", night.said, re.MULTILINE))
    assert night.follow(steps["2"])[0] == 3
    assert night.follow(steps["3"])[0] == 0
    assert "runs adopt" in steps["4"]
    assert "--settled" in steps["5"]
    assert night.follow(steps["4"])[0] == 0
    assert night.follow(steps["5"])[0] == 0, "the token settles nothing any more"
    assert night.paid() == 1250


def test_where_none_is_the_payment_the_token_pays_once(night):
    night.lose(fault="cut_before")
    printed = night.said
    assert "runs adopt" not in printed
    (found,) = night.call("reconcile", "--run-key", "order-17")[1]
    assert found["instances"] == []
    assert "no run of its workflow since then may be it" in found["reason"]
    token = re.search(r"--settled (\S+)", found["advice"])[1]
    again = re.search(r"orchestration-integrations (run .*)$", printed, re.MULTILINE)[1]
    assert token in again
    assert [night.follow(again)[0] for _ in range(2)] == [0, 0]
    assert night.paid() == 1250


def test_what_an_earlier_attempt_may_have_done_is_no_submit_of_this_one(night):
    """The doubt of a first call looks a week back; the submit that follows it does not."""
    old = night.other()
    code, (error,) = night.call("run", "payout", *VARIABLES, "--run-key", "order-17")
    assert (code, error["error"], error["candidates"]) == (3, "AmbiguousRunError", [old])
    assert re.search(r"if the key was surely never used: orchestration-integrations run .* --first-attempt", night.said)
    (told,) = night.call("reconcile", "--run-key", "order-17")[1]
    assert "an earlier attempt may have submitted a run" in told["reason"]
    night.lose()
    record = night.store.load("order-17")
    assert record.since > night.hook.get_instance(old).created_at - timedelta(minutes=1)
    assert not record.doubt


def test_a_run_on_record_for_another_key_is_no_candidate(night):
    """Neither in the error nor in the steps: whoever looks at it in the night finds another payment."""
    mine = night.call("run", "payout", *VARIABLES, "--run-key", "order-16", "--first-attempt")[1][0]["instance_id"]
    error = night.lose()
    assert len(error["candidates"]) == 1
    assert mine not in error["candidates"]
    assert mine not in night.said
    code, (again,) = night.call("run", "payout", *VARIABLES, "--run-key", "order-17")
    assert (code, again["candidates"], mine in again["message"]) == (3, error["candidates"], False)


def test_runs_that_the_server_hides_are_not_said_to_be_none(night):
    night.lose()
    night.hook.delete_workflow(night.workflow_id)
    for asked in (["--run-key", "order-17"], [night.workflow_id]):
        code, (told,) = night.call("reconcile", *asked)
        assert (code, told["finding"], told["instances"]) == (3, "ambiguous", [])
        assert "was deleted or is unknown: the server hides its runs" in told["reason"]
        assert "no run" not in told["reason"]
        assert "the server shows none of its runs" in night.said


def refused(night, *arguments, key="order-17"):
    before = night.store.load(key)
    code, (told,) = night.call("runs", "adopt", key, *arguments)
    assert (code, "nothing was changed" in told["message"]) == (2, True), told
    assert night.store.load(key) == before
    return told["message"]


def test_what_cannot_be_the_payment_is_refused(night):
    stranger = night.hook.create_workflow({**PAYOUT, "name": "other"}).id
    wrong = night.hook.run_workflow(stranger, {"merchant": "m:1", "amount": "1250"}).id
    cheap = night.other("m:1", "5")
    owned = night.call("run", "payout", *VARIABLES, "--run-key", "order-16", "--first-attempt")[1][0]["instance_id"]
    error = night.lose()
    (run,) = set(error["candidates"]) - {cheap, owned}
    assert "is of workflow" in refused(night, wrong, "--yes")
    assert "another text of variable amount" in refused(night, cheap, "--yes")
    assert "is the run of key order-16" in refused(night, owned, "--settled", error["token"])
    assert "speaks of another fate" in refused(night, run, "--settled", "0-000000000000")
    record = night.store.load("order-17")
    with closing(sqlite3.connect(night.store.path)) as file, file:
        later = record.to_json() | {"since": (record.since + timedelta(hours=1)).isoformat()}
        file.execute("UPDATE runs SET record = ? WHERE key = 'order-17'", (json.dumps(later),))
    assert "before key order-17 was submitted" in refused(night, run, "--yes")
    assert night.call("runs", "adopt", "order-17", "00000000-0000-0000-0000-000000000000", "--yes")[0] == 2
    assert night.call("runs", "adopt", "nobody", run, "--yes")[0] == 2
    assert "the run of key order-16 is known" in refused(night, run, "--yes", key="order-16")
    code, (told,) = night.call("runs", "adopt", "order-17", run)
    assert (code, "nobody answered" in told["message"]) == (2, True)


@pytest.mark.parametrize("operation", ["get_instance", "get_workflow", "get_instance_history"])
@pytest.mark.parametrize("refusal", [{"code": 401}, {"code": 400, "error_code": "VALIDATION"}], ids=["401", "400"])
def test_a_server_that_shows_nothing_does_not_say_that_it_is_another_payment(night, operation, refusal):
    """With 2 a script would go on to pay anew."""
    error = night.lose()
    (run,) = error["candidates"]
    adopt = ["runs", "adopt", "order-17", run, "--settled", error["token"]]
    with night.server.fault(operation, "status", -1, **refusal):
        code, (told,) = night.call(*adopt)
    assert (code, told["exit_status"], told["instance_id"], told["run_key"]) == (3, 3, run, "order-17")
    assert "nothing was changed, and whether it is the payment is not known" in told["message"]
    assert night.store.load("order-17").instance_id is None
    assert night.call(*adopt)[0] == 0


def test_a_run_that_a_submit_under_way_may_own_is_refused(night):
    """Its answer would bind it to that key; later, nobody waits for an answer any more."""
    error = night.lose()
    (run,) = error["candidates"]
    night.lose("order-18", "cut_before")
    assert "may be the run of key order-18" in refused(night, run, "--yes")
    record = night.store.load("order-18")
    night.store.save(record.changed(since=record.since - adopting.UNDER_WAY))
    assert "its call may still get the answer" in refused(night, run, "--yes"), "without the word of its call"
    assert night.call("runs", "adopt", "order-17", run, "--settled", error["token"])[0] == 0
    assert "is the run of key order-17" in refused(night, run, "--yes", key="order-18")


def test_a_run_that_shows_another_text_may_be_the_payment_all_the_same(night):
    """The server keeps large numbers inexactly, writes 010 as 10, and fills in what is empty."""
    for key, amount in (("large", "1230000000000000000000001"), ("zeros", "010")):
        with night.server.fault("run_workflow", "cut_after"):
            error = night.call("run", "payout", "--var", "merchant=m:1", "--var", f"amount={amount}",
                               "--run-key", key, "--first-attempt")[1][0]  # fmt: skip
        run = error["candidates"][-1]
        words = ["runs", "adopt", key, run, "--settled", error["token"]]
        if key == "zeros":
            code, (told,) = night.call(*words)
            assert (code, "If you know that it is this payment: --although-it-differs" in told["message"]) == (2, True)
            words.append("--although-it-differs")
        assert night.call(*words)[0] == 0


def test_a_part_of_a_text_tells_payments_apart(night):
    stages = [{"send": {**PAYOUT["stages"][0]["send"], "destination": {"account": {"id": "merchants:${m}"}}}}]
    night.hook.create_workflow({"name": "parts", "stages": stages})
    with night.server.fault("run_workflow", "cut_before"):
        error = night.call("run", "parts", "--var", "m=alice", "--var", "amount=100", "--run-key", "a",
                           "--first-attempt")[1][0]  # fmt: skip
    bobs = night.call("run", "parts", "--var", "m=bob", "--var", "amount=100", "--run-key", "b", "--first-attempt")[1]
    night.store.forget("b")
    refusal = refused(night, bobs[-1]["instance_id"], "--settled", error["token"], key="a")
    assert "another text of variable m" in refusal


def test_a_late_answer_takes_no_run_that_a_user_gave_to_another_key(night):
    """However long its process stood still. The run pays, so the caller learns that, and whose it is."""
    error = night.lose("o17", "cut_before")
    late = OrchestrationHttpHook(base_url=night.server.url)
    outcome = []

    class Late(SqliteRunStore):
        def choose(self, key, round, instance_id):
            record = self.load(key)
            self.save(record.changed(since=record.since - adopting.UNDER_WAY))
            code, said = night.call("runs", "adopt", "o17", instance_id, "--settled", error["token"])
            outcome.append((code, said))
            return super().choose(key, round, instance_id)

    with late, pytest.raises(AmbiguousRunError) as told:
        late.run_once(night.workflow_id, {"merchant": "m:1", "amount": "1250"}, run_key="o18",
                      store=Late(night.store.path), first_attempt=True)  # fmt: skip
    assert outcome[0][0] == 0
    (run,) = told.value.candidates
    assert told.value.token is None
    assert f"instance {run} is on record as the run of key o17" in str(told.value)
    assert night.store.load("o17").instance_id == run


def test_a_second_payment_of_a_key_is_told(night):
    """While a call's submit has no answer, a user adopts another run for its key: both pay, and the call says so."""
    other = night.other("m:1", "1250")

    class Late(SqliteRunStore):
        def choose(self, key, round, instance_id):
            record = self.load(key)
            night.store.bind(record.changed(state="chosen", instance_id=other, seen=True, attempt="runs adopt"))
            return super().choose(key, round, instance_id)

    with OrchestrationHttpHook(base_url=night.server.url) as late, pytest.raises(AmbiguousRunError) as told:
        late.run_once(night.workflow_id, {"merchant": "m:1", "amount": "1250"}, run_key="o19",
                      store=Late(night.store.path), first_attempt=True)  # fmt: skip
    assert "key o19 may be paid twice: this call has submitted instance" in str(told.value)
    assert other in told.value.candidates
    assert len(told.value.candidates) == 2
    assert told.value.token is None, "nobody is to pay a third time"


def test_a_run_that_another_attempt_has_found_meanwhile_is_no_second_payment(night):
    class Late(SqliteRunStore):
        def choose(self, key, round, instance_id):
            record = self.load(key)
            night.store.bind(record.changed(state="chosen", instance_id=instance_id, seen=True, attempt="another"))
            return super().choose(key, round, instance_id)

    with OrchestrationHttpHook(base_url=night.server.url) as late, pytest.raises(RecordConflictError):
        late.run_once(night.workflow_id, {"merchant": "m:1", "amount": "1250"}, run_key="o20",
                      store=Late(night.store.path), first_attempt=True)  # fmt: skip


def test_a_gated_key_needs_no_word_of_a_user(night):
    content = Content(stages="", variables={})
    since = night.hook.get_workflow(night.workflow_id).created_at
    record = RunRecord(
        key="g", state="intended", workflow_id=night.workflow_id, server=night.server.url, since=since, content=content,
        gate="g~1aaaaaaaabbbbbbbb~0", revision=1,
    )  # fmt: skip
    night.store.save(record)
    assert "name it at their gate" in refused(night, night.other(), "--yes", key="g")


# ---- beside a call that pays ---------------------------------------------------------------------------


class Meddled(SqliteRunStore):
    """Before its ``at``-th use something else happens once."""

    def meddle(self, at, what):
        self.left, self.what = at, what

    def _step(self):
        self.left -= 1
        if self.left == 0:
            self.what()

    def load(self, key):
        self._step()
        return super().load(key)

    def save(self, record):
        self._step()
        super().save(record)

    def choose(self, key, round, instance_id):
        self._step()
        return super().choose(key, round, instance_id)

    def bind(self, record):
        self._step()
        super().bind(record)


@pytest.mark.parametrize("settles", [True, False])
@pytest.mark.parametrize("at", range(1, 8))
def test_at_whatever_moment_it_comes_nothing_is_adopted_and_paid_anew(night, at, settles):
    """Whoever is first wins: the word that this is the payment, or the one that it is to be paid anew."""
    error = night.lose()
    (run,) = error["candidates"]
    outcome = []
    store = Meddled(night.store.path)
    store.meddle(
        at, lambda: outcome.append(night.call("runs", "adopt", "order-17", run, "--settled", error["token"])[0])
    )
    with OrchestrationHttpHook(base_url=night.server.url) as hook:
        options = {"run_key": "order-17", "store": store, "start_timeout": 2, "timeout": 20}
        try:
            result = hook.run_once(
                night.workflow_id,
                {"merchant": "m:1", "amount": "1250"},
                settled=error["token"] if settles else None,
                **options,
            )
        except Exception as raised:
            result = raised
    adopted = outcome == [0]
    anew = len(night.server.record().started) - 1
    assert night.paid() == 1250 * (1 + anew)
    assert not (adopted and anew), "both were told that theirs is the payment"
    if adopted:
        assert (
            isinstance(result, RecordConflictError)
            or getattr(result, "instance", None) is None
            or result.instance.id == run
        )
        assert night.call("run", "payout", *VARIABLES, "--run-key", "order-17")[1][0]["instance_id"] == run
    else:
        assert anew == settles or not outcome


def test_what_is_paid_anew_while_the_run_is_looked_at_is_not_adopted_over(night):
    """The word comes too late: the record has changed since it was read."""
    error = night.lose()
    (run,) = error["candidates"]
    again = ["run", "payout", *VARIABLES, "--run-key", "order-17", "--settled", error["token"]]
    store = Meddled(night.store.path)
    paid = []
    store.meddle(2, lambda: paid.extend(night.call(*again)[1]))
    plans = night.hook.plans
    with pytest.raises(RecordConflictError):
        night.hook.perform(adopting.adopt(store, "order-17", run, error["token"], plans.versions, plans.clock))
    record = night.store.load("order-17")
    assert (record.round, record.instance_id, record.end) == (1, paid[0]["instance_id"], "succeeded")
    assert run not in night.store.owners()
    assert night.paid() == 2500, "by the word of whoever settled it"


NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
STEPS = some.tuples(some.sampled_from("abc"), some.integers(0, 1), some.sampled_from("xyz"), some.booleans())


@given(some.lists(STEPS, max_size=12))
@settings(deadline=None, max_examples=60)
def test_no_run_is_ever_that_of_two_keys_and_no_round_has_two(tmp_path_factory, steps):
    """By users' words and by answers that arrived, in any order."""
    store = SqliteRunStore(tmp_path_factory.mktemp("bind") / "runs.db")
    taken = {}
    for key, number, name, by_word in steps:
        record = store.load(key)
        fresh = {"workflow_id": "w", "server": "s", "content": Content(stages="", variables={}), "key": key}
        revision = record.revision if record else 0
        intent = RunRecord(**fresh, state="intended", since=NOW, revision=revision, round=number)
        store.save(intent.changed())
        if not by_word and name in {one for owner, one in taken.items() if owner != (key, number)}:
            continue  # the server gives no id twice
        chosen = store.load(key).changed(state="chosen", instance_id=name)
        if by_word:
            try:
                store.bind(chosen)
            except ValidationError:
                assert store.load(key).instance_id is None
                continue
        elif store.choose(key, number, name) == name:
            store.save(chosen)
        else:
            continue
        assert taken.setdefault((key, number), name) == name
        assert len([one for one in taken.values() if one == name]) == 1
        assert store.owners()[name] == (key, number)
        with pytest.raises(RecordConflictError):
            store.bind(intent.changed(instance_id="q"))
        assert "q" not in store.owners(), "both or neither"


# ---- which runs may be it -------------------------------------------------------------------------------


def test_a_run_of_an_earlier_round_is_not_offered(night):
    """It has its owner: the same key, whose earlier payment it was."""
    first = night.lose()
    old = first["candidates"][0]
    night.call("runs", "adopt", "order-17", old, "--settled", first["token"])
    night.call("run", "payout", *VARIABLES, "--run-key", "order-17")
    night.call("runs", "settle", "order-17", "--yes")
    with night.server.fault("run_workflow", "cut_after"):
        code, _ = night.call("run", "payout", *VARIABLES, "--run-key", "order-17")
    assert code == 3
    steps = re.findall(r"^ +\d\. .*$", night.said, re.MULTILINE)
    assert [one for one in steps if "runs adopt" in one]
    assert [one for one in steps if old in one] == []


def test_a_key_is_told_of_whatever_workflow_is_asked_for(night):
    """Its workflow was made anew under the same name: the record is of the old one."""
    night.lose()
    night.hook.delete_workflow(night.workflow_id)
    night.hook.create_workflow(PAYOUT)
    for asked in (["--run-key", "order-17"], ["payout", "--run-key", "order-17"]):
        code, found = night.call("reconcile", *asked)
        assert (code, [one["finding"] for one in found if one["run_key"] == "order-17"]) == (3, ["ambiguous"]), asked


@pytest.mark.parametrize("behind", [0, 20 * 60])
def test_a_server_whose_clock_is_behind_hides_no_run(behind):
    """Our clock says when a run was submitted, and the server's when it was created."""

    class Clock:
        def time(self):
            return 2_000_000_000.0

        def server_time(self):
            return self.time() - behind

    since = datetime.fromtimestamp(2_000_000_000, timezone.utc)
    assert earliest_of(since, Clock()) == since - CLOCK_SKEW - timedelta(seconds=behind)
