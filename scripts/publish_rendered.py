"""Publish the default project on a branch of its own, from which forks are made.

Renders this clone's current commit into build/rendered and commits the result onto the branch
`rendered`, on top of what was published before, so that forks can pull. No work tree is touched:
the commit is made from build/rendered by an index of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from copier_questions import ROOT, visible  # isort: split

import post_gen_project  # found through copier_questions, which puts the hooks on the path
from post_gen_project import ANSWERS_FILE, GitError, Origin

RENDERED = ROOT / "build" / "rendered"


class PublishError(Exception):
    """The project cannot be published; the message says why and what to do."""


@dataclass(frozen=True)
class Branch:
    """Where the rendered project is committed.

    Attributes:
        repository: a clone's folder.
        name: the branch's name.
    """

    repository: Path
    name: str

    @property
    def ref(self) -> str:
        """The branch as git's full name."""
        return f"refs/heads/{self.name}"


def main() -> int:
    """Publish; 1 and the reason where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--branch", default="rendered", help="branch to commit onto")
    parser.add_argument("--repository", type=Path, default=ROOT, help="clone that has the branch")
    arguments = parser.parse_args()
    try:
        print(publish(ROOT, Branch(arguments.repository.resolve(), arguments.branch), RENDERED))
    except (PublishError, GitError) as error:
        print(f"nothing was published: {error}", file=sys.stderr)
        return 1
    return 0


def publish(template: Path, branch: Branch, folder: Path) -> str:
    """Render a template's current commit and commit the result.

    Args:
        template: a clone of the template.
        branch: where to commit.
        folder: where to render; what it holds is replaced.

    Returns:
        what was done, in a sentence.

    Raises:
        PublishError: the template or the branch does not allow it.
        GitError: git failed.
    """
    require_branch_is_free(branch)
    origin = origin_of(template)
    render(template, folder, origin)
    parent = newest_commit(branch)
    tree = write_tree(branch.repository, folder)
    if parent and same_project(branch.repository, parent, tree):
        git(branch.repository, "update-ref", branch.ref, parent)
        return f"{branch.name} is unchanged: {folder} is what {parent[:12]} holds"
    message = commit_message(template, origin)
    onto = ("-p", parent) if parent else ()
    commit = git(branch.repository, "commit-tree", tree, *onto, "-m", message)
    git(branch.repository, "update-ref", "-m", "publish", branch.ref, commit)
    note = f"{branch.name} is now at {commit[:12]}: {message.splitlines()[0]}"
    return f"{note}\n{push_advice(template, origin)}".rstrip()


def require_branch_is_free(branch: Branch) -> None:
    """Make sure that no work tree follows the branch, which would then differ from it.

    Raises:
        PublishError: the repository, the branch's name or a work tree forbids it.
    """
    if not branch.repository.is_dir():
        raise PublishError(f"{branch.repository} is no folder: REPOSITORY names a clone")
    try:
        git(branch.repository, "rev-parse", "--git-dir")
        git(branch.repository, "check-ref-format", branch.ref)
    except GitError as error:
        raise PublishError(
            f"{branch.name!r} cannot be a branch of {branch.repository} ({error}); for example: "
            "make rendered BRANCH=rendered REPOSITORY=../my-clone"
        ) from error
    for line in git(branch.repository, "worktree", "list", "--porcelain").splitlines():
        if line == f"branch {branch.ref}":
            raise PublishError(
                f"{branch.name} is checked out in {branch.repository}: switch to another branch "
                "there, for example: git switch main"
            )


def origin_of(template: Path) -> Origin:
    """The address and the commit by which forks find the template again.

    Raises:
        PublishError: the clone has no origin, or changes that are in no commit.
    """
    try:
        url = git(template, "config", "remote.origin.url")
    except GitError as error:
        raise PublishError(
            "this clone has no remote named origin, by whose address forks find the template "
            "again; name it with: git remote add origin ADDRESS"
        ) from error
    rendered = post_gen_project.rendered_paths(template)
    if changes := git(template, "status", "--porcelain", "--", *rendered):
        raise PublishError(
            f"the template has changes that are in no commit, so that no update could find them:\n"
            f"{changes}\ncommit them first"
        )
    release = post_gen_project.same_release(template)
    return Origin(address(template, url), release or git(template, "rev-parse", "HEAD"))


def address(template: Path, url: str) -> str:
    """A remote's address as copier reads it; a folder by its absolute path."""
    folder = template / Path(url).expanduser()
    return str(folder.resolve()) if folder.is_dir() else post_gen_project.copier_address(url)


def render(template: Path, folder: Path, origin: Origin) -> None:
    """Render the default project of a template's current commit, whatever its work tree holds."""
    with tempfile.TemporaryDirectory() as scratch:
        clone, output = Path(scratch, "template"), Path(scratch, "output")
        git(template, "init", "--quiet", str(clone))
        git(clone, "fetch", "--quiet", "--no-tags", "--depth=1", template.as_uri(), "HEAD")
        git(clone, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        settings = Path(scratch, "settings.yml")
        settings.write_text(f"replay_dir: {scratch}/replay\n", encoding="utf-8")
        words = [sys.executable, "-m", "cookiecutter", str(clone), "--no-input"]
        words += ["--config-file", str(settings), "--output-dir", str(output)]
        environment = {**os.environ, post_gen_project.FIRST_COMMIT_VARIABLE: "no"}
        result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PublishError(f"the template does not render:\n{result.stdout}{result.stderr}")
        [project] = output.iterdir()
        write_origin(project, origin)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(project, folder)


def write_origin(project: Path, origin: Origin) -> None:
    """Name the template's origin in the answers file, in place of the clone that was rendered."""
    path = project / ANSWERS_FILE
    text = path.read_text(encoding="utf-8")
    answers = yaml.safe_load(text)
    comments = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
    path.write_text("".join(comments), encoding="utf-8")
    post_gen_project.write_answers(project, {n: answers[n] for n in visible(answers)}, origin)


def newest_commit(branch: Branch) -> str:
    """What was published last, here or at the repository's origin; nothing the first time.

    Raises:
        PublishError: both published something that the other does not have.
    """
    refs = (branch.ref, f"refs/remotes/origin/{branch.name}")
    listing = git(branch.repository, "for-each-ref", "--format=%(objectname)", *refs).split()
    if not listing:
        return ""
    newest = git(branch.repository, "merge-base", "--independent", *listing).split()
    if len(newest) > 1:
        raise PublishError(
            f"{branch.name} and origin/{branch.name} have each what the other has not; make one "
            f"of them with: git branch --force {branch.name} origin/{branch.name}"
        )
    return newest[0]


def write_tree(repository: Path, folder: Path) -> str:
    """Store a folder's content in a repository, as a tree; nothing is checked out or ignored."""
    with tempfile.TemporaryDirectory() as scratch:
        as_is = ("-c", "core.autocrlf=false", "-c", "core.fileMode=true")
        place = (f"--git-dir={git_folder(repository)}", f"--work-tree={folder}")
        index = str(Path(scratch, "index"))
        git(folder, *as_is, *place, "add", "--all", "--force", ".", index=index)
        return git(folder, *place, "write-tree", index=index)


def git_folder(repository: Path) -> Path:
    """Where a repository keeps its objects and branches."""
    return (repository / git(repository, "rev-parse", "--git-common-dir")).resolve()


def same_project(repository: Path, commit: str, tree: str) -> bool:
    """Whether two trees differ at most in the commit that the answers file names."""
    if changed := git(repository, "diff-tree", "-r", "--name-only", commit, tree).split():
        if changed != [ANSWERS_FILE]:
            return False
        ours, theirs = (
            yaml.safe_load(git(repository, "show", f"{which}:{ANSWERS_FILE}"))
            for which in (commit, tree)
        )
        return bool({**ours, "_commit": None} == {**theirs, "_commit": None})
    return True


def commit_message(template: Path, origin: Origin) -> str:
    """What was rendered: the release where there is one, and the full commit."""
    commit = git(template, "rev-parse", "HEAD")
    name = f"commit {commit[:12]}" if origin.commit == commit else str(origin.commit)
    return f"Render the template at {name}\n\nTemplate: {origin.address}\nCommit: {commit}"


def push_advice(template: Path, origin: Origin) -> str:
    """What to do where the origin may not have the commit yet, as far as this clone knows."""
    if git(template, "branch", "--remotes", "--contains", "HEAD"):
        return ""
    return f"push {origin.commit} to origin too: updates of forks look for it there"


def git(folder: Path, *arguments: str, index: str = "") -> str:
    """Run git, with an index of its own where one is given, and give its output, stripped.

    Raises:
        GitError: git is missing or failed; with the reason that it gave.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in post_gen_project.GIT_LOCATIONS
    }
    if index:
        environment["GIT_INDEX_FILE"] = index
    words = ["git", *arguments]
    try:
        result = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
    if result.returncode != 0:
        raise GitError(f"`{' '.join(words)}` failed: {result.stderr.strip()}")
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
