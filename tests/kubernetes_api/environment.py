"""Environment, command and arguments of a container: env, envFrom, valueFrom and $(VARIABLE), as makeEnvironmentVariables in
pkg/kubelet/kubelet_pods.go resolves them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tests.kubernetes_api import errors
from tests.kubernetes_api.filesystem import PodFilesystem, contents
from tests.kubernetes_api.objects import CONFIG_MAPS, SECRETS, Object, Resource
from tests.kubernetes_api.spec import ImageSpec
from tests.kubernetes_api.store import Store

_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[-._a-zA-Z0-9]+)\)")
_KEYED_FIELD = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>[^']+)'\]")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ConfigError(Exception):
    """The waiting reason CreateContainerConfigError: something that the environment refers to is missing."""


def environment(store: Store, pod: Mapping[str, Any], container: Object, image: ImageSpec, files: PodFilesystem) -> dict[str, str]:
    """Nothing of this machine's environment gets in. Raises ConfigError."""
    namespace = pod["metadata"]["namespace"]
    result = {"PATH": os.pathsep.join([*image.path, _SYSTEM_PATH]), "HOSTNAME": pod["metadata"]["name"], "HOME": str(files.home(container))}
    result |= image.environment
    for source in container.get("envFrom", []):
        kind, resource = ("secretRef", SECRETS) if "secretRef" in source else ("configMapRef", CONFIG_MAPS)
        values = _values(store, resource, namespace, source[kind]["name"], optional=source[kind].get("optional", False)) or {}
        result |= {source.get("prefix", "") + key: value.decode() for key, value in values.items()}
    for entry in container.get("env", []):
        value = _from(store, pod, entry["valueFrom"]) if "valueFrom" in entry else expanded(entry.get("value", ""), result)
        if value is not None:
            result[entry["name"]] = files.rewritten(container, value)
    return result


def command(container: Object, image: ImageSpec, variables: Mapping[str, str], files: PodFilesystem) -> list[str]:
    """What is executed: the image's entrypoint gives way to `command`."""
    words = [*container.get("command", image.entrypoint), *container.get("args", [])]
    return [files.rewritten(container, expanded(word, variables)) for word in words]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value when there is one, `$$` becomes `$`."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match["name"], match[0])

    return _REFERENCE.sub(value, text)


def _from(store: Store, pod: Mapping[str, Any], source: Mapping[str, Any]) -> str | None:
    namespace = pod["metadata"]["namespace"]
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for kind, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
        if kind in source:
            reference = source[kind]
            optional = reference.get("optional", False)
            values = _values(store, resource, namespace, reference["name"], optional=optional)
            if values is not None and reference["key"] in values:
                return values[reference["key"]].decode()
            if optional:
                return None
            raise ConfigError(f"couldn't find key {reference['key']} in {resource.kind} {namespace}/{reference['name']}")
    raise ConfigError(f"the fake kubelet does not know the source {', '.join(source)} of an environment variable")


def _values(store: Store, resource: Resource, namespace: str, name: str, *, optional: bool) -> dict[str, bytes] | None:
    try:
        return contents(resource, store.get(resource, namespace, name))
    except errors.ApiError as error:
        if optional:
            return None
        raise ConfigError(f'{resource.kind.lower()} "{name}" not found') from error


def _field(pod: Mapping[str, Any], path: str) -> str:
    if match := _KEYED_FIELD.fullmatch(path):
        return str(pod["metadata"].get(match["map"], {}).get(match["key"], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "")
    return str(value)
