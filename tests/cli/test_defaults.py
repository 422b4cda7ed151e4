"""config.toml: a user's own defaults, below flags and LAZYMLX_MODEL; what is wrong in it is one line."""

from argparse import Namespace
from pathlib import Path

import pytest

from lazymlx.cli.defaults import config_file, set_defaults
from lazymlx.cli.main import COMMANDS, main, make_parser
from lazymlx.cli.options import lazy_config
from lazymlx.errors import UsageError

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config_file().parent.mkdir()
    return config_file()


def parsed(*argv: str) -> dict:
    made = make_parser({argv[0]})[1][argv[0]]
    set_defaults(made, argv[0], COMMANDS, lambda name: make_parser({name})[1][name])
    return vars(made.parse_args(argv[1:]))


def test_a_key_is_a_flag_that_need_not_be_given(config: Path) -> None:
    config.write_text(
        'temp = 0.5\nkv-bits = 8\nport = 90\nverbose = false\n[chat]\ntemp = 1\nextra-eos-token = ["a"]\n'
    )
    generate, chat, serve = parsed("generate"), parsed("chat"), parsed("serve")
    assert (generate["temp"], generate["kv_bits"], generate["verbose"], generate["extra_eos_token"]) == (
        0.5,
        8,
        False,
        (),
    )
    assert (chat["temp"], chat["extra_eos_token"], serve["port"]) == (1.0, ["a"], 90)
    assert parsed("generate", "--temp", "0")["temp"] == 0
    assert "temp" not in generate["given"] and "temp" in parsed("generate", "--temp", "0")["given"]


def test_a_model_is_every_commands_and_other_keys_are_not(config: Path) -> None:
    config.write_text('model = "mine"\nschedule = "8:0.5"\ntrust-remote-code = true\nchat-template-config = {a = 1}\n')
    assert parsed("generate")["chat_template_config"] == {"a": 1}
    for command in ("generate", "chat", "serve", "calibrate", "eval"):
        values = parsed(command)
        assert (values["model"], values["trust_remote_code"]) == ("mine", True)
    assert parsed("eval")["schedule"] == "auto" and parsed("chat")["schedule"] == "8:0.5"


def test_the_variable_goes_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('model = "mine"\n')
    monkeypatch.setenv("LAZYMLX_MODEL", "other")
    assert parsed("generate")["model"] == "other" and parsed("generate", "--model", "third")["model"] == "third"


@pytest.mark.parametrize(
    "content, reason",
    [
        ("nonsense", "it is no TOML"),
        (b"\xff", "it is no TOML"),
        ("colour = 1", "'colour' is neither a flag nor a command"),
        ("[chit]\ntemp = 1", "'chit' is neither a flag nor a command"),
        ("chat = 3", "[chat] is the place for flags of 'lazymlx chat', got 3"),
        ("model = ''", "model: expected a name, got an empty text"),
        ("max-tokens = 1.5", "max-tokens: must be at least 1, or -1 for no limit, got 1.5"),
        ("[generate]\nport = 1", "'lazymlx generate' has no flag --port"),
        ("temp = 'hot'", "temp: invalid number value: 'hot'"),
        ("lazy = 'of'", "lazy: invalid choice: 'of'"),
        ("temp = [1, 2]", "temp: expected one value, got [1, 2]"),
        ("trust-remote-code = 'yes'", "trust-remote-code: expected true or false, got 'yes'"),
        ("chat-template-config = {day = 1979-05-27}", "chat-template-config: expected texts, numbers, true or false"),
        ("prompt = 'hi'", "prompt belongs to a single run"),
    ],
)
def test_a_mistake_is_one_line(config: Path, content: str | bytes, reason: str, capsys: Streams) -> None:
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["generate"]) == 2
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert out == "" and line.startswith(f"lazymlx: error: config: {config}: ") and reason in line


def test_a_folder_is_no_file(config: Path, capsys: Streams) -> None:
    config.mkdir()
    assert main(["chat"]) == 2
    assert f"config: {config}: it cannot be read: " in capsys.readouterr().err


def test_of_fast_and_a_schedule_the_flag_wins_and_in_the_file_they_contradict(config: Path) -> None:
    def schedule(*argv: str) -> str:
        return str(lazy_config(Namespace(**parsed("generate", *argv))).schedule)

    config.write_text("fast = true\n")
    assert (schedule(), schedule("--schedule", "8:0.5"), schedule("--schedule", "auto")) == ("bold", "8:0.5", "auto")
    config.write_text('schedule = "8:0.5"\n')
    assert (schedule(), schedule("--fast")) == ("8:0.5", "bold")
    config.write_text('fast = true\nschedule = "8:0.5"\n')
    assert (schedule("--fast"), schedule("--schedule", "4:0.5")) == ("bold", "4:0.5")
    with pytest.raises(UsageError, match="--fast: .* and 8:0.5 is given too; leave out one of the two in config.toml"):
        schedule()
