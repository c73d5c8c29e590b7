"""Links: a card opens in MLflow's own pages, whether they are MLflow's or a workspace's."""

import mlflow
import pytest

from personalize.cards.links import address, card_link, parts


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("sqlite:///mlflow.db", "#/experiments/7/runs/ab12/artifacts/card.html"),
        ("http://tracking:5000", "#/experiments/7/runs/ab12/artifacts/card.html"),
        ("databricks", "/ml/experiments/7/runs/ab12/artifacts/card.html"),
        ("databricks://a-profile", "/ml/experiments/7/runs/ab12/artifacts/card.html"),
    ],
)
def test_the_link_is_that_of_the_pages_it_is_shown_in(monkeypatch, uri, link):
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    assert card_link("7", "ab12") == link


def test_a_path_is_quoted_and_may_lie_in_a_folder():
    assert card_link("7", "ab12", "cards/evaluate two.html").endswith("/artifacts/cards/evaluate%20two.html")


def test_an_address_comes_apart_into_run_and_path():
    assert parts(address("ab12", "cards/evaluate.html")) == ("ab12", "cards/evaluate.html")
    for text in ("", "ab12/card.html", "runs:/ab12", "models:/chairs/1"):
        with pytest.raises(ValueError, match="runs:/<run>/<path>"):
            parts(text)
