"""The review as people meet it: a real server, real forms, a real browser; and what goes wrong costs nobody a vote."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from personalize.cards import Card
from personalize.evidence import keys
from personalize.recipe import Inputs, RecipeError
from personalize.review import approval, server, session, votes
from personalize.serving.registry import RegistryError
from steps import review
from steps.cards.review import show
from tests.review.browsing import Person, serving
from tests.review.world import PROMPTS


def test_people_vote_blind_and_every_vote_is_kept_at_once_on_disk_and_in_mlflow(open_review, store):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        for count in range(1, 9):
            assert "tuned" not in person.page
            assert "zwvchr" not in person.page
            person.vote()
            assert len(list((store / "build/reviews" / opened.evidence.run_id).glob("*.json"))) == count
            assert len(mlflow.MlflowClient().list_artifacts(opened.evidence.run_id, votes.ARTIFACTS)) == count
    kept, _ = opened.counted()
    assert {vote.voter for vote in kept} == {"Ada"}
    assert all(vote.worth == 1 for vote in kept)
    assert all(vote.seconds is not None and vote.seconds < 30 for vote in kept)
    assert all({vote.left, vote.right} in ({"tuned", "base"}, {"photograph", "photograph of another"}) for vote in kept)
    assert {vote.left for vote in kept} > {"tuned"}


def test_pictures_tell_nothing_but_what_they_show(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        heads, lengths = set(), set()
        for side in ("left", "right"):
            with person.opener.open(f"{url}pictures/{person.form['pair']}/{side}") as response:
                content = response.read()
                heads.add(
                    (
                        response.headers["Content-Type"],
                        response.headers.get("Last-Modified"),
                        response.headers.get("ETag"),
                    )
                )
                lengths.add(len(Image.open(io.BytesIO(content)).info))
        assert heads == {("image/webp", None, None)}
        assert len(lengths) == 1
        assert Person(url).get(f"pictures/{person.form['pair']}/left").startswith("There is no such picture")


def test_everybody_is_asked_the_same_blocks_in_an_order_and_on_sides_of_their_own(open_review):
    opened = open_review()
    ada, grace = opened.order("Ada"), opened.order("Grace")
    assert [shown.pair.id for shown in ada] != [shown.pair.id for shown in grace]
    first = len(PROMPTS) + round(len(PROMPTS) / 3)
    assert {shown.pair.id for shown in ada[:first]} == {shown.pair.id for shown in grace[:first]}
    assert {shown.pair.prompt for shown in ada[:first] if shown.pair.kind == "base"} == {
        p.format("chair") for p in PROMPTS
    }
    for kind in ("base", votes.CONTROL):
        of = [shown for shown in ada if shown.pair.kind == kind]
        assert abs(sum(shown.first_is_left for shown in of) - len(of) / 2) <= 0.5
    assert opened.order("ada") == ada, "a name is the same in any case"


def test_a_check_shows_an_own_photograph_that_is_not_above_it_beside_another_subjects(open_review):
    for shown in open_review().order("Ada"):
        if shown.pair.kind == votes.CONTROL:
            assert shown.pair.first.path not in shown.pair.references
            assert shown.pair.token in str(shown.pair.first.path)
            assert shown.pair.token not in str(shown.pair.second.path)


def test_with_one_subject_the_check_is_against_the_base_and_with_one_photograph_there_is_none(open_review):
    one = open_review(tokens=("zwvchr",), weights=b"one").order("Ada")
    assert {shown.pair.second.what for shown in one if shown.pair.kind == votes.CONTROL} == {"base"}
    lone = open_review(tokens=("zwvchr",), photographs=1, weights=b"lone").order("Ada")
    assert all(shown.pair.kind != votes.CONTROL for shown in lone)


def test_the_champion_is_shown_against_on_the_same_questions(open_review, store):
    client = mlflow.MlflowClient()
    open_review(weights=b"old", seeds=(1,))
    client.set_registered_model_alias("chairs", "champion", "1")
    opened = open_review(weights=b"new")
    against = [shown.pair for shown in opened.order("Ada") if shown.pair.kind == "champion"]
    assert len(against) == 2 * len(PROMPTS)
    assert all("made 0" in str(pair.second.path) or pair.second.path.is_file() for pair in against)
    client.set_registered_model_alias("chairs", "champion", "2")
    again = review.begin(review.Config(name="chairs"))
    kinds = {shown.pair.kind for shown in again.order("Ada")}
    assert kinds == {"base", votes.CONTROL}, "nobody is asked to tell a model from itself"


def test_a_decision_ends_the_review_and_names_what_was_looked_at(open_review):
    opened = open_review()
    with serving(opened) as url:
        people = [Person(url, f"Person {number}") for number in range(2)]
        for person in people:
            for _ in range(24):
                person.vote()
        page = people[0].decide("approve")
        assert "Approved by Person 0" in page
        assert "the legs are right" in page
    record = approval.in_force(opened.evidence.run_id)
    assert (record["decision"], record["by"], record["votes"]) == ("approved", "Person 0", 48)
    assert record["key"] == keys.own_id(), "it is signed"
    train = mlflow.get_run(approval.parts(record["model"]["address"])[0]).info.artifact_uri
    weights = Path(train.removeprefix("file://"), "outputs/lora/pytorch_lora_weights.safetensors").read_bytes()
    assert record["model"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert opened.results()["against"]["base"]["settled"] == "better"


@pytest.mark.parametrize(
    ("form", "words"),
    [({"reason": " "}, "needs a reason"), ({"by": ""}, "needs a name"), ({"decision": "perhaps"}, "approve or reject")],
)
def test_half_a_decision_is_none(open_review, form, words):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        assert words in person.decide(**({"decision": "approve"} | form))
        assert person.status == 400
        assert approval.in_force(opened.evidence.run_id) is None


def test_gates_that_did_not_pass_cannot_be_approved_and_can_be_rejected(open_review):
    opened = open_review(gates=["failed"], verdict="failed")
    with serving(opened) as url:
        person = Person(url, "Ada")
        assert "does not stand in for them" in person.decide("approve")
        assert approval.in_force(opened.evidence.run_id) is None
        assert "Rejected by Ada" in person.decide("reject", "the back is wrong")


def test_a_page_that_is_open_twice_answers_a_pair_once(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        here = person.form
        person.vote("left")
        page = person.vote("right", **here)
        assert "your first answer stands" in page
        (vote,) = opened.counted()[0]
        assert vote.choice == "left"


def test_two_reviewers_at_once_lose_nothing_and_a_decision_on_old_results_is_asked_again(open_review):
    opened = open_review()
    with serving(opened) as url:
        people = [Person(url, f"Person {number}") for number in range(4)]
        threads = [threading.Thread(target=lambda p=p: [p.vote() for _ in range(10)]) for p in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened.counted()[0]) == 40
        people[0].get("results")
        seen = people[0].form
        people[1].vote()
        page = people[0].post(
            "results", **(seen | {"by": "Person 0", "decision": "approve", "reason": "fine & <good>"})
        )
        assert people[0].status == 409
        assert "Votes have come since" in page
        assert "fine &amp; &lt;good&gt;</textarea>" in page, "what was written is kept"
        assert approval.in_force(opened.evidence.run_id) is None
        people[0].decide("approve")
        assert people[0].status == 200
        people[2].post("vote", **(people[2].form | {"choice": "left"}))
        assert people[2].status == 409
        assert "voting is closed" in people[2].page


def test_two_servers_on_one_run_share_their_votes(open_review, store):
    opened = open_review()
    elsewhere = review.begin(review.Config(name="chairs", folder="another machine"))
    with serving(opened) as one, serving(elsewhere) as other:
        ada, grace = Person(one, "Ada"), Person(other, "Grace")
        for _ in range(3):
            ada.vote()
            grace.vote()
        ada.get("results")
        assert "Grace" in ada.page
    assert len(opened.counted()[0]) == 6


def test_a_vote_after_the_model_changed_is_refused_and_the_earlier_ones_are_kept(open_review, monkeypatch):
    monkeypatch.setattr(session, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(session, "SHARE_OF_TIME", float("inf"))
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        person.vote()
        run_id = approval.parts(opened.evidence.model.address)[0]
        weights = Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / approval.ADAPTER
        weights.write_bytes(b"trained again")
        page = person.vote("left")
        assert person.status == 409
        assert "the model is not the one that was looked at" in page
        assert len(opened.counted()[0]) == 1
        person.get("results")
        person.decide("approve")
        assert person.status == 409
        assert approval.in_force(opened.evidence.run_id) is None


def test_a_page_of_another_evaluation_is_refused_with_a_sentence(open_review):
    first = open_review()
    with serving(first) as url:
        person = Person(url, "Ada")
        old = person.form
    second = open_review(weights=b"newer")
    with serving(second) as url:
        person = Person(url, "Ada")
        page = person.vote("left", **old)
        assert person.status == 409
        assert "made for another model or another evaluation" in page
        assert second.counted()[0] == []


def test_a_newer_challenger_is_said_on_every_page(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        open_review(weights=b"newer")
        assert "Version 2 is the challenger now. You see version 1" in person.get("vote")


def test_a_browser_closed_in_the_middle_goes_on_where_it_was(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        for _ in range(5):
            person.vote()
        waiting = person.form["pair"]
    again = review.begin(review.Config(name="chairs"))
    with serving(again) as url:
        back = Person(url, " ada ")
        assert back.form["pair"] == waiting
        assert "5 answered" in back.page


def test_votes_survive_a_tracking_server_that_does_not_answer(open_review, monkeypatch):
    opened = open_review()
    away = mlflow.MlflowClient.log_artifact

    def refuses(*arguments, **named):
        raise OSError("the server is away")

    with serving(opened) as url:
        person = Person(url, "Ada")
        monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuses)
        person.vote()
        assert "1 vote kept on this machine; MLflow has not answered yet" in person.page
        person.decide("approve")
        assert "have not reached MLflow yet" in person.page
        monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", away)
        person.get("vote")
        person.vote()
        assert "has not answered" not in person.page
    assert len(mlflow.MlflowClient().list_artifacts(opened.evidence.run_id, votes.ARTIFACTS)) == 2


def test_what_is_no_vote_is_refused_and_nothing_is_kept(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        for form in ({"choice": "up"}, {"pair": "0" * 16}, {"key": ""}, {"pair": "../../etc/passwd"}):
            person.get("vote")
            person.vote("left", **form) if "choice" not in form else person.vote(**form)
            assert person.status == 409
        person.post("vote", **(person.form | {"choice": "left", "more": "x" * 20_000}))
        assert person.status == 409
        nobody = Person(url)
        nobody.post("vote", pair="0" * 16, choice="left", key=opened.evidence.key)
        assert "Your name" in nobody.page
        person.get("nowhere")
        assert person.status == 404
        assert opened.counted()[0] == []


def test_a_form_from_another_site_and_another_host_are_refused(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        form = urllib.parse.urlencode(person.form | {"choice": "left"}).encode()
        for header in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                person.opener.open(urllib.request.Request(url + "vote", form, header))
            assert refused.value.code == 403
        with pytest.raises(urllib.error.HTTPError) as refused:
            person.opener.open(urllib.request.Request(url, headers={"Host": "elsewhere.example"}))
        assert refused.value.code == 400
        assert opened.counted()[0] == []


def test_a_name_is_what_was_typed_and_no_markup(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "<script>alert(1)</script> Zoë\n\t" + "x" * 200)
        assert "<script>alert" not in person.page
        person.vote()
        (vote,) = opened.counted()[0]
        assert vote.voter.startswith("<script>alert(1)</script> Zoë x")
        assert len(vote.voter) <= votes.LONGEST_NAME
        assert "<script>alert" not in person.get("results")


def test_the_card_is_served_as_its_digest_says(open_review):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        assert hashlib.sha256(person.get("card").encode()).hexdigest() == opened.evidence.card.sha256


def test_a_platforms_header_names_people_only_where_it_is_asked_for(open_review):
    opened = open_review()
    with serving(opened) as url:
        liar = Person(url, **{"X-Forwarded-Email": "boss@example.org"})
        assert "boss@example.org" not in liar.page
    other = open_review(weights=b"in an app")
    with serving(other, signed_in_by="X-Forwarded-Email") as url:
        person = Person(url, **{"X-Forwarded-Email": "ada@example.org"})
        person.get("vote")
        person.vote()
        assert other.counted()[0][0].voter == "ada@example.org"
        assert "Approved by ada@example.org" in person.decide("approve", by="somebody else")
        nobody = Person(url)
        nobody.get("vote")
        assert nobody.status == 401


def test_every_misuse_of_the_step_is_one_sentence(open_review, store):
    opened = open_review()
    draw = next(run for run in mlflow.search_runs(output_format="list") if run.data.tags.get("recipe.step") == "draw")
    client = mlflow.MlflowClient()
    for config, kind, words in [
        ({"run": "f" * 32}, RecipeError, "is not in the tracking store"),
        ({"run": draw.info.run_id}, RecipeError, "is a run of step 'draw', and one of 'evaluate' is needed"),
        ({"version": "7"}, RegistryError, "has no version '7'"),
        ({"name": "tables"}, RegistryError, "No model of that name"),
    ]:
        with pytest.raises(kind, match=words):
            review.begin(review.Config(**({"name": "chairs"} | config)))
    client.delete_model_version_tag("chairs", "1", "evaluate_run")
    with pytest.raises(RecipeError, match="names no evaluation"):
        review.begin(review.Config(name="chairs"))
    assert review.begin(review.Config(name="chairs", run=opened.evidence.run_id)).evidence.key == opened.evidence.key
    with server.listen("127.0.0.1", 0) as taken, pytest.raises(server.ServerError, match="cannot be listened on"):
        server.listen("127.0.0.1", taken.getsockname()[1])


def test_what_it_came_to_is_a_result_with_a_card(open_review, store, monkeypatch):
    opened = open_review()
    with serving(opened) as url:
        person = Person(url, "Ada")
        for _ in range(8):
            person.vote()
        person.decide("approve")
    outputs = store / "outputs"
    outputs.mkdir()
    with mlflow.start_run():
        review._leave(opened, outputs)
    card = Card("review")
    show(review.Config(), Inputs({}), outputs, card)
    assert card.came_to == "approved"
    assert "approved by Ada" in card.html()
    assert len((outputs / "votes.jsonl").read_text().splitlines()) == 8
    assert json.loads((outputs / "review.json").read_text())["evidence"]["run_id"] == opened.evidence.run_id
    assert dataclasses.asdict(opened.evidence)["scores"]["sha256"] in card.html()
