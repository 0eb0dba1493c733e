from __future__ import annotations

from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
from lnsegfm.imaging.dicom.rtstruct_profiles import PROFILES


@pytest.mark.parametrize(
    ("text", "given"), [("0.5", (0.5, 0.01)), ("0.5,0.002", (0.5, 0.002)), (" 1 , 0 ", (1.0, 0.0))]
)
def test_thinning_is_a_distance_and_a_share(text: str, given: tuple[float, float]) -> None:
    assert Thinning.of(text) == Thinning(*given)
    assert Thinning.of(str(Thinning.of(text))) == Thinning(*given)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1%", "1,2", "1,-0.1", "1,2,3", "much", "1,nan"])
def test_what_is_no_thinning_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--thin .*Use 0\.5, or 0\.5,0\.01\.$"):
        Thinning.of(text)


def test_a_profile_and_what_the_user_says_of_it() -> None:
    assert RtstructOptions().settled == PROFILES["generic"]
    assert RtstructOptions(short_names=True).settled.name_length == 16
    assert RtstructOptions(profile="eclipse", holes="keyhole").settled.holes == "keyhole"
    assert all(profile.name_length in (16, 64) for profile in PROFILES.values())
    with pytest.raises(
        ConfigError, match=r"--profile pinnacle: not known\. Use generic, eclipse, raystation, monaco\."
    ):
        RtstructOptions(profile="pinnacle")
    with pytest.raises(ConfigError, match=r"--holes slit: not known\. Use separate or keyhole\."):
        RtstructOptions(holes="slit")


def test_only_what_differs_from_the_defaults_is_recorded() -> None:
    assert RtstructOptions().to_json() == RtstructOptions(holes="separate").to_json() == {}
    options = RtstructOptions(profile="monaco", thin=Thinning(1), short_names=True)
    assert options.to_json() == {"profile": "monaco", "thin": "1,0.01", "short_names": True}
    assert "Miller" not in str(RtstructOptions(add_to=Path("Miller.dcm")).to_json())
    assert RtstructOptions(add_to=Path("a")).to_json() != RtstructOptions(add_to=Path("b")).to_json()
