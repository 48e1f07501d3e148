"""The language as a JSON Schema (draft-07, which editors' YAML servers know best), made from its grammar.

A schema sees one document without its model: it catches what is misspelt, missing, of a wrong type or out of bounds.
What YAML hides (duplicate keys, tabs) and what only a model tells (stacks, layers, components) is found by
`surgery check`.
"""

import re
from collections.abc import Mapping
from typing import Any

from surgery.spec.beside_vary import FORWARD
from surgery.spec.grammar import (
    BESIDE,
    CUMULATIVE,
    KEYS,
    OPERATIONS,
    ORDER_GROUP,
    REQUIRED_KEYS,
    VERSION,
    WHEN,
    Field,
    Form,
)
from surgery.spec.limits import MAX_INDEX
from surgery.spec.profile_group import PATTERN as PROFILE_GROUP
from surgery.spec.selector import MODELS
from surgery.spec.vary import RANGE

SCHEMA_DIALECT = "http://json-schema.org/draft-07/schema#"
TITLE = "Specs of layer surgery"

TEMPLATE = r"\{(?:[\w\s+/%()-]|\*(?!\*))*\}"  # arithmetic over the variables of a sweep
INDEX = r"(?:0{0,2}[0-9]{1,5}|0?100000|-(?:0?[0-9]{1,5}|100000))"  # up to MAX_INDEX, in at most seven characters
NUMBER = rf"(?:{INDEX}|-?[0-9]*(?:{TEMPLATE}[0-9]*)+)"
STEP = rf"(?:(?![0]+(?![0-9]))(?!-){INDEX}|{TEMPLATE})"
PART = rf"\s*(?:{NUMBER}|{NUMBER}?\s*:\s*{NUMBER}?(?:\s*:\s*{STEP}?)?)\s*"
WORD = rf"(?:[A-Za-z_0-9]\w*|\*|\w*(?:{TEMPLATE}\w*)+)"
NAME = rf"{WORD}(?:\.{WORD})*"
PLAIN_NAME = NAME.replace(r"|\*", "")  # of one stack
PREFIX = rf"(?:\s*(?:{'|'.join(MODELS)}|\*|{TEMPLATE})\s*/)?"
SUBSCRIPT = rf"\[{PART}(?:,{PART})*\]"
LAYERS_PATTERN = rf"^{PREFIX}{NAME}(?:{SUBSCRIPT})?\s*$"
COMPONENT_PATTERN = rf"^{PREFIX}{NAME}(?:{SUBSCRIPT}\.{NAME})?\s*$"
MEMBERS_PATTERN = rf"^{PREFIX}{NAME}(?:{SUBSCRIPT}(?:\.{NAME})?)?\s*$"
SELECTIONS = {  # what is selected -> the pattern of one selector, and an example
    "layers": (LAYERS_PATTERN, "transformer_blocks[4:15]"),
    "components": (COMPONENT_PATTERN, "transformer_blocks[2:5].attn1"),
    "members": (MEMBERS_PATTERN, "transformer_blocks[4:15]"),  # of a group
}
WHOLE_TEMPLATE = rf"^{TEMPLATE}$"


def json_schema() -> dict[str, Any]:
    """The schema of a spec, as plain data for `json.dumps`."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": TITLE,
        "type": "object",
        "required": list(REQUIRED_KEYS),
        "dependencies": {"cumulative": ["vary"], "average": ["vary"]},
        "additionalProperties": False,
        "properties": {name: {"description": meaning, **_key(name)} for name, meaning in KEYS.items()},
        "definitions": {
            "operation": _operation(),
            "layers": _selection("layers"),
            "components": _selection("components"),
            "members": _selection("members"),
        },
    }


def _key(name: str) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string", "pattern": r"\S"}
    match name:
        case "surgery":
            return {"const": VERSION, "default": VERSION}
        case "groups":
            names = {"pattern": r"^[A-Za-z_]\w*$"}
            from_profile = {"type": "string", "pattern": f"^{re.sub(r'[(][?]P<.*?>', '(?:', PROFILE_GROUP)}$"}
            group = [from_profile, *_selection("members")["anyOf"]]
            return {"type": "object", "propertyNames": names, "additionalProperties": {"anyOf": group}}
        case "vary":
            names = {"pattern": r"^[^\W\d]\w*$"}
            return {"type": "object", "minProperties": 1, "propertyNames": names, "additionalProperties": _variable()}
        case "cumulative":
            fields = {key: {"description": meaning, **text} for key, meaning in CUMULATIVE.items()}
            fields["order"]["default"] = FORWARD
            along = {"type": "object", "additionalProperties": False, "required": ["over"], "properties": fields}
            return {"anyOf": [text, along]}
        case "average":
            return {"anyOf": [text, {"type": "array", "minItems": 1, "uniqueItems": True, "items": text}]}
        case "operations":
            return _operations()
        case _:
            return text


def _variable() -> dict[str, Any]:
    scalar = {"type": ["number", "string"]}
    return {
        "description": "A list, range(0, 13), a selector (its layers), or cases: lists of operations by name.",
        "oneOf": [
            {"type": "array", "minItems": 1, "items": scalar},
            {"type": "string", "pattern": rf"^\s*{RANGE.pattern}\s*$|\["},
            {"type": "object", "minProperties": 1, "additionalProperties": _operations()},
        ],
    }


def _operations() -> dict[str, Any]:
    name = {"type": "string", "pattern": r"^[A-Za-z_]\w*$", "description": "A variable of vary that holds cases."}
    return {"type": "array", "items": {"if": {"type": "string"}, "then": name, "else": _reference("operation")}}


def _operation() -> dict[str, Any]:
    """One object of all operations, so that an editor offers each with its text; exactly one of them is required."""
    properties = {name: _form(name, form) for name, form in OPERATIONS.items()}
    properties |= {name: _field(field) for name, field in BESIDE.items()}
    missing = f"write one operation: {', '.join(OPERATIONS)}"
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "anyOf": [{"required": [name], "errorMessage": missing} for name in OPERATIONS],
        "dependencies": {name: _alone(name) for name in OPERATIONS},
    }


def _alone(name: str) -> dict[str, Any]:
    """No other operation beside this one; an editor marks the other and says why, which `oneOf` does not."""
    others = {other: False for other in OPERATIONS if other != name}
    return {"properties": others, "errorMessage": f"{name} stands in this entry already; put a dash before each"}


def _form(name: str, form: Form) -> dict[str, Any]:
    mapping = _mapping(form.fields)
    told = {
        "title": name,
        "description": form.meaning,
        "markdownDescription": f"{form.meaning}\n\nExample: `{form.example}`",
        "defaultSnippets": [{"label": form.example, "description": form.meaning, "body": form.example}],
    }
    if form.bare is None:
        return {**mapping, **told}
    return {**told, "anyOf": [*_type(form.fields[form.bare])["anyOf"], {"title": f"fields of {name}", **mapping}]}


def _mapping(fields: Mapping[str, Field]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field) for name, field in fields.items()},
    }
    required = [name for name, field in fields.items() if field.required]
    if required:
        found["required"] = required
    if {"times", "using"} <= set(fields):
        found["oneOf"] = [{"required": ["times"]}, {"required": ["using"]}]
    return found


def _field(field: Field) -> dict[str, Any]:
    told: dict[str, Any] = {"description": field.meaning}
    if field.default is not None:
        told["default"] = field.default
    return {**told, **_type(field)}


def _type(field: Field) -> dict[str, Any]:
    integer: dict[str, Any] = {"type": "integer"}
    match field.kind:
        case "layers":
            return _selection("layers")
        case "component":
            return _selection("components")
        case "count":
            bounds = {"minimum": field.minimum} | ({} if field.maximum is None else {"maximum": field.maximum})
            return _or_template({**integer, **bounds})
        case "number":
            return _or_template({"type": "number", "exclusiveMinimum": -1e30, "exclusiveMaximum": 1e30})
        case "choice":
            return _or_template({"enum": list(field.choices)})
        case "using":
            index = {**integer, "minimum": -MAX_INDEX, "maximum": MAX_INDEX}
            return {"anyOf": [{"enum": ["center"]}, *_or_template(index)["anyOf"]]}
        case "stack":
            return {"type": "string", "pattern": rf"^{PREFIX}{PLAIN_NAME}\s*$"}
        case "indices":
            return {"type": "array", "minItems": 1, "items": _or_template(integer)}
        case "order":
            layers = {"type": "string", "pattern": rf"^\s*(?:{NUMBER}?\s*:\s*{NUMBER}?(?:\s*:)?|{TEMPLATE})\s*$"}
            return {"type": "array", "minItems": 1, "items": {"anyOf": [integer, layers, _mapping(ORDER_GROUP)]}}
        case "when":
            return {**_mapping(WHEN), "minProperties": 1}
        case "window":
            share = _or_template({"type": "number", "minimum": 0, "maximum": 1})
            return {"type": "array", "minItems": 2, "maxItems": 2, "items": share}
        case "steps":
            span = {"type": "string", "pattern": rf"^\s*(?:{NUMBER}?\s*:\s*{NUMBER}?|{TEMPLATE})\s*$"}
            step = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_INDEX}, span]}
            return {"anyOf": [*step["anyOf"], {"type": "array", "minItems": 1, "items": step}]}
        case kind:
            raise AssertionError(f"{kind} is no kind of field")


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    template = {"description": "A value of a sweep, like {s+1}.", "type": "string", "pattern": WHOLE_TEMPLATE}
    return {"anyOf": [schema, template]}


def _selection(name: str) -> dict[str, Any]:
    """A selector, or a list of such; the list may hold lists, as aliases of lists make them.

    It stands in full wherever it is used, since editors complete nothing behind a reference that has a description.
    """
    pattern, example = SELECTIONS[name]
    message = f"write a stack and a Python subscript with a positive step, or a group, like {example}"
    text = {"type": "string", "pattern": pattern, "patternErrorMessage": message}
    several = {"type": "array", "minItems": 1, "items": _reference(name)}
    return {"anyOf": [text, several]}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}
