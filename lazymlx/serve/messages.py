"""Messages in OpenAI's form, checked and put into the form of chat templates."""

import json
from typing import Any

from .request import Body, ChatMessage, Refusal, mapping, objects, refuse, shown

PASSED_ON = ("name", "tool_call_id", "reasoning", "reasoning_content")
RESERVED = (
    "messages conversation tools documents tokenizer chat_template add_generation_prompt continue_final_message "
    "tokenize padding truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs"
).split()  # options of `apply_chat_template` itself


def messages_of(body: Body) -> tuple[ChatMessage, ...]:
    """The messages of a body; a role that is not known is left to the chat template.

    Raises:
        Refusal: they are malformed.
    """
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refusal(400, f"messages: expected a list with at least one message, got {shown(body.get('messages'))}")
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(body["messages"]))


def _message(message: Any, where: str) -> ChatMessage:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refusal(400, f"{where}: expected an object with a role, got {shown(message)}")
    calls = [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(objects(message, "tool_calls"))]
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        content = ""  # of a message that calls tools
    role = "system" if message["role"] == "developer" else message["role"]
    given = {name: message[name] for name in PASSED_ON if isinstance(message.get(name), str)}
    taken = {"role": role, "content": text_of(content, f"{where}.content"), **given}
    return {**taken, "tool_calls": calls} if calls else taken


def _call(call: Body, where: str) -> Body:
    """A call that the model made earlier; templates want its arguments as an object."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refusal(400, f"{where}: expected a function with a name, got {shown(call)}")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise Refusal(400, f"{where}: expected arguments in JSON, got {shown(arguments)}") from None
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


def text_of(content: Any, where: str) -> str:
    """The text of a message: a string, or a list of parts that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"{where}: expected a text or a list of parts, got {shown(content)}")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, f"{where}: this server reads text alone, got a part of type {shown(kind)}; leave it out")
    return "\n".join(part["text"] for part in content)


def tools_of(body: Body) -> tuple[Body, ...]:
    """The tools that may be called.

    Raises:
        Refusal: they are malformed, or a call is asked for that cannot be promised.
    """
    refuse(body, {"functions": "this server knows tools instead; put them there"})
    tools, choice = objects(body, "tools"), body.get("tool_choice") or "auto"
    for i, tool in enumerate(tools):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refusal(400, f"tools[{i}]: expected a function with a name, got {shown(tool)}")
    if choice not in ("auto", "none"):
        raise Refusal(400, f"tool_choice: the model itself decides what it calls, got {shown(choice)}; leave it out")
    return () if choice == "none" else tuple(tools)


def options_of(body: Body) -> tuple[tuple[str, Any], ...]:
    """Options for the chat template.

    Raises:
        Refusal: one is no template's.
    """
    options = mapping(body, "chat_template_kwargs")
    for name in RESERVED:
        if name in options:
            raise Refusal(400, f"chat_template_kwargs: {name} is not the template's; leave it out")
    return tuple(options.items())
