"""The `model-compose` command: which options there are. What a command needs is imported when it runs, not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from .. import __version__
from ..adapters.errors import ComposeError
from .console import explained

if TYPE_CHECKING:
    from .compose_files import ComposeOptions

LogLevel = Literal["debug", "info", "warning", "error"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Number = TypeVar("Number", int, float)

Key = Annotated[
    str | None,
    typer.Option(
        "--api-key", "-k", envvar="MODEL_COMPOSE_API_KEY", show_envvar=True, help="The key that clients have to send."
    ),
]

Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A compose file, or the name of a workflow of the library; ./model-compose.yml if left out. Several are "
        "merged, later ones over earlier ones.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", metavar="NAME=VALUE", help="A value for ${env.NAME}; several if repeated."),
]
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Read variables from this file and not from .env beside the compose file."),
]

app = typer.Typer(
    name="model-compose",
    help="Serve language models on this machine through OpenAI's API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command that the arguments name; errors meant for the user are a line each and exit code 2."""
    try:
        app()
    except ComposeError as error:
        typer.echo(explained(error), err=True)
        raise SystemExit(2) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"model-compose {__version__}")
        raise typer.Exit


@app.callback()
def options_of_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve language models on this machine through OpenAI's API."""


@app.command()
def up(  # noqa: PLR0913 (an option is a parameter)
    file: Files = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the server is ready, and leave it running.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A Hugging Face id (org/name) or a folder, or NAME=either to choose the name; several if repeated. "
            "Without it and without a compose file, the small model that comes with the program, as 'bundled'.",
        ),
    ] = None,
    no_file: Annotated[bool, typer.Option("--no-file", help="Leave the compose file of this folder alone.")] = False,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Serve only this workflow of the compose file, and load only what it needs."),
    ] = None,
    env: Variables = None,
    env_file: EnvFiles = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="The address to listen on; 0.0.0.0 for all there are. If left out, the compose file's, or 127.0.0.1."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The port to listen on; 0 for any free one. If left out, the compose file's, or 8080.",
        ),
    ] = None,
    api_key: Key = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="The numbers to compute with.")] = "auto",
    max_model_len: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Less context than the model could have.")
    ] = None,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Answers that a model gives at the same time.")] = 64,
    max_waiting: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Requests that may wait while so many are answered; others get 429."),
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most that keys and values of running texts may take, such as 4GB."),
    ] = None,
    max_batch_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Prompt tokens to read between tokens of answers.")
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile kernels for this CPU, or record CUDA graphs; done where it can be if left out.",
        ),
    ] = None,
    no_preload: Annotated[bool, typer.Option("--no-preload", help="Load each model at its first request.")] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Unload a model that nobody has used for so long, such as 10m."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only use models that are on this machine already.")
    ] = False,
    cache_dir: Annotated[Path | None, typer.Option(help="Where downloaded models are kept.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="What to log about requests and models.")] = "info",
    no_webui: Annotated[
        bool,
        typer.Option("--no-webui", envvar="MODEL_COMPOSE_NO_WEBUI", show_envvar=True, help="Serve no Web UI."),
    ] = False,
    webui_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The Web UI's port; 0 for any free one. If left out, the compose file's, or 8081.",
        ),
    ] = None,
    stop_with_stdin: Annotated[
        bool, typer.Option("--stop-with-stdin", help="Stop when standard input ends, for programs that start this one.")
    ] = False,
) -> None:
    """Serve the compose file of this folder, and models, until Ctrl-C.

    How models are loaded (--device to --cache-dir) is also for those of the compose file that leave it open.

    A hub model that is gated or private needs an access token in the environment variable HF_TOKEN.
    """
    from ..adapters.quantities import bytes_in, until_never
    from ..adapters.transformers.settings import ModelSettings
    from .plan import UpOptions

    common = ModelSettings(
        name="",
        source="",
        device=device,
        precision=precision,
        max_model_len=max_model_len,
        max_concurrent_count=max_concurrent,
        max_waiting_count=max_waiting,
        kv_cache_memory=_quantity(kv_cache_memory, bytes_in, "a size such as 4GB"),
        max_batch_tokens=max_batch_tokens,
        compile=compile,
        preload=not no_preload,
        keep_alive=_quantity(keep_alive, until_never, "a time such as 10m, or never"),
        trust_remote_code=trust_remote_code,
        local_files_only=offline,
        cache_dir=str(cache_dir) if cache_dir else None,
    )
    options = UpOptions(
        models=tuple(model or ()),
        common=common,
        compose=_compose(file, env, env_file),
        has_file=not no_file,
        workflow=workflow,
        host=host,
        port=port,
        api_key=api_key or None,
        has_webui=not no_webui,
        webui_port=webui_port,
        log_level=log_level,
        stop_with_stdin=stop_with_stdin,
    )
    if detach:
        from .detach import run as run_detached

        raise typer.Exit(run_detached(options))
    from .up import run

    raise typer.Exit(run(options))


@app.command()
def run(
    workflow: Annotated[
        str | None, typer.Argument(metavar="[WORKFLOW]", help="The workflow's id; the default one if left out.")
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="JSON|@FILE|-", help="The input: JSON, a file with JSON, or standard input."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the output to this file.")
    ] = None,
    file: Files = None,
    env: Variables = None,
    env_file: EnvFiles = None,
    api_key: Key = None,
) -> None:
    """Run a workflow and print its output: a text as it comes, anything else as JSON.

    It runs on the server of this folder if there is one, else (and with -e or --env-file) on one started for it.

    The exit code is 0 if the run worked, 1 if it failed, and 2 if the input or the compose file is wrong.
    """
    from .run import RunOptions
    from .run import run as run_workflow

    options = RunOptions(
        workflow=workflow, input=given, output=output, compose=_compose(file, env, env_file), api_key=api_key or None
    )
    raise typer.Exit(run_workflow(options))


@app.command()
def down(file: Files = None) -> None:
    """Stop the server of this folder."""
    from .down import run

    raise typer.Exit(run(_compose(file)))


@app.command()
def ps(
    file: Files = None,
    all_folders: Annotated[bool, typer.Option("--all", "-a", help="The servers of all folders.")] = False,
) -> None:
    """List the servers of this folder that run, with the state of their models."""
    from .ps import run

    raise typer.Exit(run(_compose(file), is_everywhere=all_folders))


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as long as the server runs.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="Only the last so many lines.")
    ] = None,
    file: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="The compose file of the server.")] = None,
) -> None:
    """Show what the server of this folder said, if it was started with 'up -d'."""
    from .logs import run

    raise typer.Exit(run(_compose(file), follows=follow, lines=lines))


@app.command()
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="The name of a model of the server, or anything that --model of 'up' takes."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The server's URL. Without it http://127.0.0.1:8080/v1, or a server of its own."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", metavar="TEXT", help="A system prompt.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", min=0, max=2)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    api_key: Key = None,
) -> None:
    """Chat with a model of a running server; if none runs, with one started for the occasion.

    With standard input from a file or a pipe each line is a turn, and standard output has the answers and nothing else.
    """
    from .chat import ChatOptions, run

    options = ChatOptions(
        model=model, url=url, system=system, temperature=temperature, max_tokens=max_tokens, api_key=api_key or None
    )
    raise typer.Exit(run(options))


@app.command()
def bench(  # noqa: PLR0913 (an option is a parameter)
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="The name of a model or workflow of the server, or anything that --model of 'up' takes.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The server's URL. Without it http://127.0.0.1:8080/v1, or a server of its own."),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="How many answers to ask for.")] = 50,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="How many at the same time.")] = 8,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="The user's message.")
    ] = "Write a short story about a robot.",
    given: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="JSON|@FILE|-", help="Further inputs of a workflow, as 'run' takes them."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and no table.")] = False,
    api_key: Key = None,
) -> None:
    """Measure how fast a model answers many clients: requests and tokens a second, and how long they wait.

    All answers are streamed. One goes first and is not counted. Ctrl-C shows what was measured until then.

    The exit code is 0 if all were answered, 1 if one was not, and 2 if the options or the inputs are wrong.
    """
    from .bench import BenchOptions
    from .bench import run as run_bench

    options = BenchOptions(
        model=model,
        url=url,
        requests=requests,
        concurrency=concurrency,
        prompt=prompt,
        input=given,
        max_tokens=max_tokens,
        as_json=as_json,
        api_key=api_key or None,
    )
    raise typer.Exit(run_bench(options))


@app.command()
def validate(
    file: Files = None,
    env: Variables = None,
    env_file: EnvFiles = None,
) -> None:
    """Check a compose file: say what it offers, or everything that is wrong with it (exit code 2)."""
    from .validate import run

    raise typer.Exit(run(_compose(file, env, env_file)))


def _compose(
    files: list[Path] | None, env: list[str] | None = None, env_files: list[Path] | None = None
) -> ComposeOptions:
    from .compose_files import ComposeOptions

    return ComposeOptions(files=tuple(files or ()), env=tuple(env or ()), env_files=tuple(env_files or ()))


def _quantity(text: str | None, read: Callable[[str], Number | None], wanted: str) -> Number | None:
    """What a text with a unit stands for."""
    value = None if text is None else read(text)
    if text is not None and value is None:
        raise typer.BadParameter(f"'{text}' is not {wanted}")
    return value


if __name__ == "__main__":
    main()
