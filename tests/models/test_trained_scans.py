"""The record of the scans that trained a model."""

from __future__ import annotations

import hashlib
import json

import pytest

from lnsegfm.errors import ModelError
from lnsegfm.models.trained_scans import FORMAT, TRAINED_ON, TrainedCases, TrainedScans, Training

A, B, C, D = (character * 32 for character in "abcd")
OWN = Training.on([B, A], ["Ann"])
BASE = Training.on([C])


def test_goes_into_plans_and_back_and_replaces_what_was_there():
    scans = TrainedScans().after(BASE).after(OWN)
    plans = scans.in_plans({"plans_name": "nnUNetPlans"})
    assert TrainedScans.of_plans(json.loads(json.dumps(plans))) == scans
    assert [set(one.scans) for one in scans.trainings] == [{A, B}, {C}]  # the model's own first
    assert TrainedScans((BASE,)).in_plans(plans)[TRAINED_ON]["trainings"] == [{"scans": [C], "subjects": []}]
    assert TrainedScans().in_plans(plans) == {"plans_name": "nnUNetPlans"}


def test_no_plans_record_nothing_and_a_training_counts_once():
    assert not TrainedScans.of_plans({})
    assert TrainedScans((OWN,)).after(OWN) == TrainedScans((OWN,)).after(None) == TrainedScans((OWN,))
    assert TrainedScans((OWN,)).together([TrainedScans((BASE,)), TrainedScans((OWN,))]).scans == {A, B, C}


def test_no_name_of_a_patient_is_in_it():
    (hashed,) = OWN.subjects
    assert "Ann" not in json.dumps(TrainedScans((OWN,)).in_plans({}))
    salt = f"lnsegfm {A}".encode()
    assert hashed == hashlib.scrypt(b"Ann", salt=salt, n=4096, r=8, p=1, dklen=16).hex()
    assert hashed not in Training.on([C], ["Ann"]).subjects  # of another training the salt is another


def test_cases_are_known_by_their_scan_or_by_their_patient():
    scans = TrainedScans((OWN, BASE))
    cases = {"one": A, "again": D, "other": D, "third": C, "sibling": D}
    subjects = {"again": "Ann", "other": "Bob", "third": "Cid", "sibling": "Cid"}
    known = scans.among(cases, subjects)
    assert known == TrainedCases(scans=("one", "third"), subjects=("again", "sibling"))
    assert known.within(["one", "sibling", "other"]) == TrainedCases(("one",), ("sibling",))
    assert TrainedScans().among(cases, subjects).cases == set()


@pytest.mark.parametrize(
    "entry",
    [
        [],
        "scans",
        {"format": "other", "trainings": []},
        {"format": FORMAT},
        {"format": FORMAT, "trainings": [{"scans": "abc", "subjects": []}]},
        {"format": FORMAT, "trainings": [{"scans": [A[:-1]], "subjects": []}]},
        {"format": FORMAT, "trainings": [{"scans": [1], "subjects": []}]},
        {"format": FORMAT, "trainings": [{"scans": [A]}]},
    ],
)
def test_what_is_no_record_is_refused(entry):
    with pytest.raises(ModelError, match=f"{TRAINED_ON} is not of the format"):
        TrainedScans.of_plans({TRAINED_ON: entry})
