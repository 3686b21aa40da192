import pytest

from xcflow.errors import ConfigError
from xcflow.serving.http.settings import ServerSettings, is_loopback, settings_of


def test_values_are_set_by_their_names():
    settings = settings_of(["most_texts=5", "poll_seconds=0.5", "log_texts=true"], " secret\n")
    assert settings == ServerSettings(
        most_texts=5, poll_seconds=0.5, log_texts=True, token="secret"
    )
    assert settings_of(["model_name=my-model"], "").model_name == "my-model"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("most_texts", "expected key=value"),
        ("=3", "expected key=value"),
        ("most_text=3", "most_text"),
        ("most_texts=many", "most_texts"),
        ("most_texts=1.5", "most_texts"),
        ("most_texts=0", "must be above 0"),
        ("queue_texts=-1", "must be above 0"),
        ("timeout_seconds=nan", "must be finite"),
        ("timeout_seconds=inf", "must be finite"),
        ("model_name=a/b", "model_name may hold"),
        ('model_name=""', "model_name may hold"),
        ("token=secret", "XCFLOW_SERVE_TOKEN"),
    ],
)
def test_a_wrong_value_is_named(override, reason):
    with pytest.raises(ConfigError, match=reason):
        settings_of([override], "")


def test_addresses_that_only_this_machine_reaches():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example", "127.0.0.1.example"):
        assert not is_loopback(host)
