"""A pod's folders, and how a process stands in for a container that sees them at its mount paths.

Mounting needs privileges that a test does not have. Instead every mount path that stands in the command, the arguments, the environment or
a mounted ConfigMap is replaced by the folder that backs it. What a program computes for itself, or reads in an encoded form (the Pipes
context), is not seen: such a program must take its paths from its own configuration.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kubernetes_api import errors
from tests.kubernetes_api.objects import CONFIG_MAPS, SECRETS, Object, Resource, containers_of
from tests.kubernetes_api.store import Store


class MountError(Exception):
    """A volume cannot be set up (yet): the event FailedMount."""


class PodFilesystem:
    """Volumes of one pod."""

    def __init__(self, pod: Mapping[str, Any], folder: Path, claims: Mapping[str, str], rewrite_host: Mapping[str, str]) -> None:
        self._pod = pod
        self._folder = folder
        self._claims = claims
        self._rewrite_host = rewrite_host

    def working_directory(self, container: Object) -> Path:
        """Where the container starts: its workingDir where a volume backs it, a folder of its own otherwise."""
        own = self.home(container)
        wanted = Path(self.rewritten(container, container.get("workingDir", "")))
        return wanted if wanted.is_absolute() and wanted.is_dir() else own

    def home(self, container: Mapping[str, Any]) -> Path:
        """The container's own folder."""
        own = self._folder / "containers" / str(container["name"])
        own.mkdir(parents=True, exist_ok=True)
        return own

    def termination_message_path(self, container: Mapping[str, Any]) -> Path:
        """The file behind terminationMessagePath."""
        return self.home(container) / "termination-log"

    def set_up(self, store: Store) -> None:
        """Make the volumes. Raises MountError while something that they need is missing."""
        for volume in self._pod["spec"].get("volumes", []):
            folder = self._volume(volume)
            if "persistentVolumeClaim" not in volume:
                folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                self._write_files(store, CONFIG_MAPS, volume, folder)
            elif "secret" in volume:
                self._write_files(store, SECRETS, volume, folder)

    def rewritten(self, container: Mapping[str, Any], text: str) -> str:
        """`text` with the container's mount paths replaced."""
        return _replace(text, {**self._mounts([container]), **self._rewrite_host})

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        if "persistentVolumeClaim" in volume:
            return Path(self._claims[volume["persistentVolumeClaim"]["claimName"]])
        return self._folder / "volumes" / str(volume["name"])

    def _mounts(self, containers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        volumes = {volume["name"]: self._volume(volume) for volume in self._pod["spec"].get("volumes", [])}
        mounts: dict[str, str] = {}
        for container in containers:
            for mount in container.get("volumeMounts", []):
                backing = volumes[mount["name"]] / mount.get("subPath", "")
                if not backing.exists():
                    backing.mkdir(parents=True)
                mounts[mount["mountPath"].rstrip("/")] = str(backing)
            mounts[container["terminationMessagePath"]] = str(self.termination_message_path(container))
        return mounts

    def _write_files(self, store: Store, resource: Resource, volume: Mapping[str, Any], folder: Path) -> None:
        source = volume["secret" if resource == SECRETS else "configMap"]
        name = source["secretName" if resource == SECRETS else "name"]
        try:
            item = store.get(resource, self._pod["metadata"]["namespace"], name)
        except errors.ApiError as error:
            if source.get("optional"):
                return
            raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        content = contents(resource, item)
        for key in content if "items" not in source else ():
            (folder / key).write_bytes(self._seen(resource, content[key]))
        for each in source.get("items", []):
            if each["key"] not in content:
                why = f"references non-existent {'secret' if resource == SECRETS else 'config'} key: {each['key']}"
                raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}')
            target = folder / each["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._seen(resource, content[each["key"]]))

    def _seen(self, resource: Resource, content: bytes) -> bytes:
        if resource == SECRETS or b"\0" in content:
            return content
        replacements = {**self._mounts(containers_of(dict(self._pod))), **self._rewrite_host}
        return _replace(content.decode(), replacements).encode()


def contents(resource: Resource, item: Mapping[str, Any]) -> dict[str, bytes]:
    """A ConfigMap's or Secret's values by key."""
    if resource == SECRETS:
        return {key: base64.b64decode(value) for key, value in item.get("data", {}).items()}
    text = {key: value.encode() for key, value in item.get("data", {}).items()}
    return text | {key: base64.b64decode(value) for key, value in item.get("binaryData", {}).items()}


def _replace(text: str, replacements: Mapping[str, str]) -> str:
    """Whole paths only: /data is found in `--root=/data/x` and `file:///data`, not in /database nor in /mnt/data."""
    if not replacements:
        return text
    choice = "|".join(re.escape(path) for path in sorted(replacements, key=len, reverse=True))
    pattern = rf"(?:(?<![\w.\-/])|(?<=://))(?:{choice})(?![\w\-]|\.\w)"
    return re.sub(pattern, lambda match: replacements[match[0]], text)
