"""What every endpoint shares: what is sent, what counts as an answer, the line to paste."""

import base64
import io
import json
import subprocess

import pytest
from PIL import Image

from personalize.serving.endpoint import (
    EndpointError,
    check_smoke,
    curl_line,
    payload,
    predictions,
)


def answer(width: int = 40, height: int = 24, rows: int = 1, **changes: object) -> dict:
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(encoded, "WEBP")
    row = {"image": base64.b64encode(encoded.getvalue()).decode(), "format": "webp", "seed": 7, **changes}
    return {"predictions": [row] * rows}


def test_values_go_where_the_signature_wants_them_and_nothing_is_sent_for_none():
    request = {"prompt": "a chair", "seed": 3, "steps": 8, "width": None}
    assert payload(request, columns={"prompt", "seed", "width"}, params={"steps"}) == {
        "dataframe_records": [{"prompt": "a chair", "seed": 3}],
        "params": {"steps": 8},
    }


def test_a_value_the_model_does_not_take_is_named_together_with_those_it_takes():
    with pytest.raises(EndpointError, match=r"no `sampler`; it takes prompt, seed"):
        payload({"prompt": "a chair", "sampler": "ddim"}, columns={"prompt"}, params={"seed"})


def test_an_answer_is_decoded_and_keeps_its_bytes_and_facts():
    [picture] = predictions(answer(seed=11))
    assert (picture.width, picture.height, picture.format, picture.facts["seed"]) == (40, 24, "webp", 11)
    assert picture.data == base64.b64decode(answer()["predictions"][0]["image"])
    assert picture.open().size == (40, 24)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"predictions": []}, "without pictures"),
        ({"error_code": "BAD_REQUEST"}, "without pictures"),
        ({"predictions": [{"error": "prompt is longer than 77 tokens"}]}, "longer than 77 tokens"),
        (answer(image="not base64!"), "not a picture"),
        (answer(image=base64.b64encode(b"plain text").decode()), "not a picture"),
        (answer(image=answer()["predictions"][0]["image"][:40]), "not a picture"),
        ({"predictions": [{"format": "png"}]}, "not a picture"),
    ],
)
def test_what_is_not_a_whole_picture_is_refused(body, words):
    with pytest.raises(EndpointError, match=words):
        predictions(body)


def test_the_smoke_request_wants_one_picture_of_the_size_asked_for():
    def ask(_):
        return predictions(answer(width=40, height=24))

    assert check_smoke(ask, {"prompt": "x", "width": 40, "height": 24}).width == 40
    assert check_smoke(ask, {"prompt": "x"}).height == 24, "a size that was not asked for is not checked"
    with pytest.raises(EndpointError, match="a height of 48 pixels and got 24"):
        check_smoke(ask, {"prompt": "x", "width": 40, "height": 48})
    with pytest.raises(EndpointError, match="one picture and got 2"):
        check_smoke(lambda _: predictions(answer(rows=2)), {"prompt": "x"})


def test_the_pasted_line_survives_quotes_and_unicode(tmp_path):
    prompt = """it's a "büro" chair; $(touch oops) `touch oops`"""
    line = curl_line("http://127.0.0.1:9/invocations", {"dataframe_records": [{"prompt": prompt}]})
    shown = subprocess.run(
        ["bash", "-c", 'curl() { printf "%s" "${@: -1}"; }; ' + line.rsplit(" | python3", 1)[0]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(shown.stdout)["dataframe_records"][0]["prompt"] == prompt
    assert not (tmp_path / "oops").exists()
