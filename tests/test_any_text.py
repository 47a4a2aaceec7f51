"""Whatever a person types comes back exactly as typed, or is refused before anything is written.

Most examples take a reduced template: the real questions, rules and hooks, with those of its files
that carry an answer and those that the hooks ask for. Some take the whole template. Both tools run
in this process, which is what makes hundreds of examples affordable.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import post_gen_project
import pre_gen_project
from in_process import DEFINITION, TREE, InProcess
from projects import BIN, RenderedProject, differences

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML parser")

TEXTS = ("project_name", "description", "author_name")
# Two spaces lie between them.
VISIBLE_SEEDS = r"""
'  "  '  \  \n  \u0041  `  {  }  [  ]  ,  -  ---  ...  ~  $$  @  !tag  &a  *a  |  >
: #  :  #  ? a  = a  %  %s  %(a)s  ***  - [ ] a  [a](b)  | a |  <b>  <!-- a -->  ]]>  </script>
$(touch gone)  `touch gone`  ${HOME}  $HOME  ; touch gone  && touch gone  | tee gone  > gone
yes  no  null  true  on  0  007  1e3  0x1f  .inf  3.10  2026-11-23  12:30
{{ 7 * 7 }}  {% if %}  {# a #}  {{  }}  << 7 * 7 >>  <% if %>  <# a #>  <<  <%  <#  <  %>  >>
It's  Zoë  name  ß  İ  ﬀ  日本  שלום  مرحبا  😀  👩‍👩‍👧  Z͑ͫa̴l
"""
SEEDS = [
    *re.split(r" {2,}|\n", VISIBLE_SEEDS.strip()),
    *"\t\n\r\0\a\x7f\x85\xa0\u2028\u2029\ufeff\ufffe\uffff\ud83d\U0001fffe",
    *("'" * 3, '"' * 3, " ", "x" * 300, "e\u0301", "\u202eabc\u202c", "\x1b[31m"),
]


def harmless(text: str) -> str:
    """A text without what is refused; said again here, so that the rule in the hook is judged."""
    kept = (
        character
        for character in text
        if unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        and character not in '"\\\ufeff\ufffe\uffff'
    )
    return re.sub("<+(?=[<%#])", "", "".join(kept)).strip()


NASTY = st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4).map("".join)
ANY = st.text(st.characters(), max_size=300)
HARMLESS = st.one_of(NASTY, ANY).map(lambda text: harmless(text) or "x")
SLUGS = st.sampled_from(["a", "z9", "an-ordinary-name", "abcdefghij-klmnopqrst-uvwxyz-1"])
SOUND = st.builds(
    lambda texts, choices, slug, address: {
        **texts,
        **choices,
        "project_slug": slug,
        "package_name": slug.replace("-", "_"),
        "author_email": address,
    },
    st.fixed_dictionaries(dict.fromkeys(TEXTS, HARMLESS)),
    st.fixed_dictionaries(
        {name: st.sampled_from(choices) for name, choices in pre_gen_project.CHOICES.items()}
    ),
    SLUGS,
    st.sampled_from(["you@example.com", "A_%-1+a.b@EXAMPLE.museum", "null@no.yes"]),
)
# Paths as a slug end cookiecutter itself: test_refusals.py has them.
PERHAPS_REFUSED = st.one_of(NASTY, ANY).map(lambda text: text.replace("/", "-"))
ONE_ANSWER = st.one_of(
    [st.fixed_dictionaries({name: PERHAPS_REFUSED}) for name in pre_gen_project.RULES]
)


def search(examples: int, *, always_the_same: bool) -> settings:
    return settings(
        max_examples=examples,
        derandomize=always_the_same,
        database=None,
        deadline=None,
        # Each step of shrinking renders two projects; the seeds are short already.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# By default always the same 34 renderings, so that a run fails for what was changed; in the slow
# tests 500, other ones each time.
SEARCHES = [
    pytest.param("reduced", search(15, always_the_same=True), id="reduced-15"),
    pytest.param("whole", search(2, always_the_same=True), id="whole-2"),
    pytest.param(
        "reduced", search(225, always_the_same=False), id="reduced-225", marks=pytest.mark.slow
    ),
    pytest.param("whole", search(25, always_the_same=False), id="whole-25", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    return InProcess(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    tools = InProcess(tmp_path_factory.mktemp("reduced"))
    tree = tools.template / TREE
    trackers = [
        path.replace("*", "<<cookiecutter.package_name>>")
        for paths in DEFINITION["_tracker_files"].values()
        for path in paths
    ]
    texts = re.compile("|".join(rf"cookiecutter\.{name}\b" for name in TEXTS))
    tools.keep_only(
        *post_gen_project.REQUIRED_FILES,
        "src/<<cookiecutter.package_name>>/__init__.py",
        *trackers,
        *(
            path.relative_to(tree).as_posix()
            for path in tree.rglob("*")
            if path.is_file() and texts.search(path.read_text(encoding="utf-8"))
        ),
    )
    return tools


@pytest.mark.parametrize(("size", "searched"), SEARCHES)
def test_text_comes_back_as_typed_or_is_refused_by_both_tools(
    size: str, searched: settings, request: pytest.FixtureRequest
) -> None:
    tools: InProcess = request.getfixturevalue(size)
    outcomes = Counter[bool]()

    @searched
    @given(SOUND, ONE_ANSWER)
    def check(sound: dict[str, str], changed: dict[str, str]) -> None:
        for answers in (sound, sound | changed):
            tools.clear()
            one, other = tools.cookiecutter(answers), tools.copier(answers)
            accepted = acceptable(answers)
            outcomes[accepted] += 1
            if not accepted:
                assert (one, other, tools.left()) == (None, None, ["cookiecutter"])
                continue
            assert one is not None
            assert other is not None
            assert differences(one, other) == []
            assert_holds(one, answers, "." if size == "whole" else "src")

    check()
    assert outcomes[True] >= searched.max_examples
    assert outcomes[False] > searched.max_examples / 5, outcomes


@pytest.mark.parametrize(
    "searched",
    [
        search(20, always_the_same=True),
        pytest.param(search(200, always_the_same=False), marks=pytest.mark.slow),
    ],
    ids=["20", "200"],
)
def test_a_typed_name_names_the_same_folder_in_both_tools(
    searched: settings, reduced: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is typed at cookiecutter's prompt; every other question gets the return key."""

    @searched
    @given(st.one_of(NASTY, ANY, HARMLESS).filter(lambda text: "\n" not in text))
    def check(text: str) -> None:
        reduced.clear()
        monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n" * len(DEFINITION)))
        one = reduced.cookiecutter_asking()
        # The prompt takes spaces off; only the return key alone gives the default.
        name = text.strip() if text else DEFINITION["project_name"]
        other = reduced.copier({"project_name": name})
        assert (one is None) == (other is None)
        if one is None or other is None:
            assert reduced.left() == ["cookiecutter"]
            return
        assert differences(one, other) == []
        assert one.answers["project_name"] == name
        assert one.path.name == one.answers["project_slug"]

    check()


def acceptable(answers: Mapping[str, str]) -> bool:
    """Whether answers have to be accepted: texts by the rule of this file, names by the hook's."""
    return all(
        (answers[name] != "" and harmless(answers[name]) == answers[name])
        if name in TEXTS
        else pre_gen_project.passes(rule, answers[name])
        for name, rule in pre_gen_project.RULES.items()
    )


def assert_holds(project: RenderedProject, answers: Mapping[str, str], linted: str) -> None:
    """The project parses, lints and imports, and its metadata are the answers to the letter."""
    for path in project.path.rglob("*"):
        assert not path.is_file() or list(post_gen_project.file_problems(path)) == []
    metadata = tomllib.loads(project.read("pyproject.toml"))["project"]
    assert metadata["description"] == answers["description"]
    author = {"name": answers["author_name"], "email": answers["author_email"]}
    assert metadata["authors"] == [author]
    assert {name: project.answers[name] for name in answers} == answers
    assert project.read("README.md").split("\n")[0] == f"# {answers['project_name']}"
    assert answers["author_name"] in project.read("LICENSE")
    project.run(BIN / "ruff", "check", "--no-cache", "--quiet", linted)
    project.run(BIN / "ruff", "format", "--no-cache", "--diff", "--quiet", linted)
    project.run(sys.executable, "-c", f"import {answers['package_name']}", PYTHONPATH="src")
    assert not list(project.path.rglob("gone"))
