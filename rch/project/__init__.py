"""cwd -> Project, Manifest, digest: what a command needs from this machine.

::

    project = build_project(argv, kind, cwd, env, settings, state_dir, client_id, uid)     Project, or NotOffloadable
      found = discover_roots(argv, kind, cwd, env, settings)                 Discovery (no process is started)
      cache = stat_cache(state_dir, root.key)                                StatCache; "build": of build directories
      overlay = git_overlay(root, "head", state_dir, checkouts)              Overlay(entries, sources)
      manifest = take_manifest(root, kind, ManifestRules.of(settings), cache, rehash=False, also=(), overlay=overlay)
      tools = identify_tools(kind.tools, cwd, env)                           tuple[ToolIdentity, ...]
      env = job_environment(kind, env, config_env)                           dict
      files = cargo_cache_files(root, env, lock)                             tuple[RelPath, ...] below CARGO_HOME
    here = scan_build_dirs(root, stat_cache(state_dir, root.key, "build"))   BuildState: Mapping[path, Entry]
                                                                             .hash_of(path) .status(path) .save()
"""

from rch.project._memory import collect_all
from rch.project.build import build_project
from rch.project.builddirs import BuildState, scan_build_dirs
from rch.project.cargo import cargo_aliases
from rch.project.environment import job_environment
from rch.project.gitdir import Overlay, git_overlay
from rch.project.manifest import take_manifest, tree_digest
from rch.project.model import ExtraFile, Manifest, Project, Root, Tool, ToolIdentity
from rch.project.registry import cargo_cache_files, fetch_step
from rch.project.roots import Discovery, discover_roots, root_key
from rch.project.settings import DEFAULT_EXCLUDES, ManifestRules, ProjectSettings
from rch.project.statcache import StatCache, stat_cache
from rch.project.tools import identify_tools

__all__ = [
    "DEFAULT_EXCLUDES",
    "BuildState",
    "Discovery",
    "ExtraFile",
    "Manifest",
    "ManifestRules",
    "Overlay",
    "Project",
    "ProjectSettings",
    "Root",
    "StatCache",
    "Tool",
    "ToolIdentity",
    "build_project",
    "cargo_aliases",
    "cargo_cache_files",
    "collect_all",
    "discover_roots",
    "fetch_step",
    "git_overlay",
    "identify_tools",
    "job_environment",
    "root_key",
    "scan_build_dirs",
    "stat_cache",
    "take_manifest",
    "tree_digest",
]
