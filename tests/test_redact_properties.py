"""Names of jobs and secrets, over drawn addresses, keys and values."""

from __future__ import annotations

import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import characters, json_values, names

from multiprune.job_name import job_name, short_keys
from multiprune.redact import HIDDEN, is_secret, redact_text, redacted

#: What RFC 3986 allows in the part of an address that says who asks, and percent signs.
_IN_ADDRESS = "abcXYZ019-._~!$&'()*+,;=%"
#: A part of every secret that is nowhere else.
MARK = "Q7Q"
secrets = st.tuples(
    st.text(st.sampled_from(_IN_ADDRESS), max_size=4),
    st.text(st.sampled_from(_IN_ADDRESS), max_size=4),
).map(MARK.join)
#: What Hydra's grammar takes between quotation marks, or bare.
values = st.text(characters.filter(lambda one: one.isprintable()), max_size=6).map(
    lambda text: f"{text[:3]}{MARK}{text[3:]}"
)
secret_keys = st.sampled_from(
    ["password", "db_password", "passphrase", "hf_token", "token", "API_KEY", "api-key", "secret",
     "client_secret", "credentials", "access_key", "private_key_file"]
)  # fmt: skip
hosts = st.sampled_from(["host", "a.example:8080", "127.0.0.1:5000", "[::1]:80", "localhost"])
schemes = st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "git+https", "ftp"])


@st.composite
def addresses(draw: st.DrawFn) -> str:
    user = draw(st.sampled_from(["", "me", "a.b", "x%40y"]))
    path = draw(st.sampled_from(["", "/", "/a/b", "/a?b=1", "/users/me@home"]))
    return f"{draw(schemes)}://{user}:{draw(secrets)}@{draw(hosts)}{path}"


@given(
    addresses(), st.sampled_from(["{}", "+a.uri={}", "a='{}'", "a={{uri: {}, b: 1}}", "at {}: x"])
)
@example("http://me:a,Q7Q@host", "uri={}")
@example("http://me:it'sQ7Q@host", "{}")
def test_no_password_of_an_address_is_left(address: str, around: str) -> None:
    text = around.format(address)
    for shown in (redact_text(text), redacted(text), redacted({"a": [text]})["a"][0]):
        assert MARK not in shown
        assert HIDDEN in shown


@given(st.sampled_from(["http", "https", "git+https"]), secrets, hosts)
def test_no_token_in_place_of_a_name_is_left(scheme: str, token: str, host: str) -> None:
    assert MARK not in redact_text(f"uri={scheme}://{token}@{host}/x.git")


def quoted(text: str, mark: str) -> str:
    """Return a text as Hydra quotes it: marks and the backslashes before them are escaped."""
    escaped = re.sub(rf"(\\*)({mark}|$)", lambda m: m[1] * 2 + ("\\" + mark) * bool(m[2]), text)
    return f"{mark}{escaped}{mark}"


@given(secret_keys, values, st.sampled_from("'\""), st.sampled_from(["", "+", "++"]))
@example("token", "it's Q7Q", "'", "")
@example("password", 'a"b Q7Q', '"', "+")
def test_no_quoted_value_of_a_secret_key_is_left(
    key: str, value: str, mark: str, sign: str
) -> None:
    assume("$" not in value)
    override = f"{sign}a.{key}={quoted(value, mark)}"
    parsed = OverridesParser.create().parse_override(f"a.b={quoted(value, mark)}")
    assert str(parsed.value()) == value
    for text in (override, f"a={{user: me, {key}: {quoted(value, mark)}, b: 1}}"):
        assert MARK not in redacted(text)
        assert MARK not in redact_text(text)


#: What Hydra takes without quotation marks.
bare = st.lists(
    st.sampled_from(["a", "b", " ", "\\,", "\\=", "\\ ", "\\\\", "=", "-", ":", "/", "$", "."]),
    max_size=5,
).map("".join)


@given(secret_keys, bare)
@example("passphrase", " horse battery")
@example("token", "\\,b")
def test_no_bare_value_of_a_secret_key_is_left(key: str, rest: str) -> None:
    override = f"a.{key}=x{rest}{MARK}"
    try:
        parsed = OverridesParser.create().parse_override(override.replace("-", "_", 1))
    except Exception:
        # Hydra refuses such, and nothing is run.
        assume(False)
    assume(isinstance(parsed.value(), str) and "${" not in rest)
    assert MARK not in redacted(override)


@given(st.dictionaries(names | secret_keys, json_values, max_size=4))
def test_a_configuration_keeps_its_shape_and_is_redacted_once(config: dict[str, Any]) -> None:
    safe = redacted(config)
    assert repr(redacted(safe)) == repr(safe)
    assert list(safe) == list(config)
    for key, value in config.items():
        if is_secret(key) and isinstance(value, str) and value and not value.startswith("${"):
            assert safe[key] == HIDDEN
        elif isinstance(value, bool) or value is None:
            assert safe[key] is value


keys = st.lists(
    st.lists(names, min_size=1, max_size=3).map(".".join), min_size=1, max_size=4, unique=True
)
#: Values of overrides, as a sweep hands them to jobs.
choices = st.text(st.sampled_from("ab1_-.+"), min_size=1, max_size=6) | st.text(
    characters.filter(lambda one: one.isprintable() and one not in "[]'\","), min_size=1, max_size=6
)


@given(keys, st.data())
@example(["a", "b"], None)
def test_jobs_of_other_values_have_other_names(own: list[str], data: st.DataObject | None) -> None:
    if data is None:
        first, second = ["1_b-2", "3"], ["1", "2_b-3"]
    else:
        drawn = st.lists(choices, min_size=len(own), max_size=len(own))
        first, second = data.draw(drawn), data.draw(drawn)
    assume(not any(is_secret(key) for key in own))
    assume("://" not in "".join(first + second))
    assume(first != second)
    jobs = [
        [f"{key}={value}" for key, value in zip(own, one, strict=True)] for one in (first, second)
    ]
    assert job_name(jobs[0], []) != job_name(jobs[1], [])


@given(keys, st.data(), st.booleans())
def test_names_of_jobs_are_safe_and_do_not_depend_on_the_order(
    own: list[str], data: st.DataObject, as_fixed: bool
) -> None:
    overrides = [f"{key}={data.draw(choices)}" for key in own]
    fixed = own[:1] if as_fixed else []
    name = job_name(overrides, fixed)
    assert name == job_name(overrides[::-1], fixed)
    assert shlex.quote(name) == name or not name
    assert re.fullmatch(r"[\w.+@-]*", name, re.ASCII)
    assert len(name) < 130
    assert not name.startswith(("/", ".."))
    parsed = OverridesParser.create().parse_override(f"encoder.path=runs/{name}")
    assert parsed.value() == f"runs/{name}"


@given(keys)
def test_short_keys_are_different_and_ends_of_the_keys(own: list[str]) -> None:
    short = short_keys(own)
    assert len(set(short)) == len(own)
    assert all(key.endswith(word) for key, word in zip(own, short, strict=True))
