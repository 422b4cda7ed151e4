"""The window in Cocoa, through PyObjC.

We have no Mac: this file was written from documentation, its constants and selectors were looked up in PyObjC's tables
and in headers, and it has never been run by us. `tk_front.py` does the same and is tested; `--tk` shows that one on
macOS too.
"""

from pathlib import Path
from typing import Any

import AppKit as ak
from controller import Controller
from events import Answered
from front import TICK_S, Front
from PyObjCTools import AppHelper

WIDTH, HEIGHT, EDGE, TALL = 860, 620, 20, 32  # points: the window, its margin, and a button
LOW, HIGH = ak.NSViewMaxYMargin, ak.NSViewMinYMargin  # at which edge of the window a view stays
SHAPE = (
    ak.NSWindowStyleMaskTitled
    | ak.NSWindowStyleMaskClosable
    | ak.NSWindowStyleMaskMiniaturizable
    | ak.NSWindowStyleMaskResizable
)


def run(controller: Controller, document: Path | None = None) -> None:
    """Show the window until the app is quit, which ends the process."""
    app = ak.NSApplication.sharedApplication()
    app.setActivationPolicy_(ak.NSApplicationActivationPolicyRegular)  # a Dock icon and a menu, without a bundle
    actions = Actions.alloc().init()
    actions.front = AppKitFront(controller, actions)
    app.setDelegate_(actions)  # which is not retained there, but here
    app.setMainMenu_(menu_bar(actions))
    actions.front.start(document)
    AppHelper.runEventLoop()


class Actions(ak.NSObject):
    """What Cocoa calls. A method's name is a selector here, so everything else is in `AppKitFront`."""

    def applicationDidFinishLaunching_(self, notification):
        ak.NSTimer.scheduledTimerWithTimeInterval_target_selector_userInfo_repeats_(TICK_S, self, "tick:", None, True)
        ak.NSApplication.sharedApplication().activateIgnoringOtherApps_(True)

    def applicationShouldTerminateAfterLastWindowClosed_(self, app):
        return True

    def applicationWillTerminate_(self, notification):
        self.front.controller.close()

    def tick_(self, timer):
        self.front.tick()

    def chooseDocument_(self, sender):
        self.front.choose()

    def askQuestion_(self, sender):
        self.front.ask()

    def stopWork_(self, sender):
        self.front.controller.stop()


class AppKitFront(Front):
    """From top to bottom: the document, the conversation, what its newest answer cost, and the question."""

    def __init__(self, controller: Controller, actions: Actions):
        super().__init__(controller)
        frame = ak.NSMakeRect(0, 0, WIDTH, HEIGHT)
        self.window = ak.NSWindow.alloc().initWithContentRect_styleMask_backing_defer_(
            frame, SHAPE, ak.NSBackingStoreBuffered, False
        )
        self.window.setReleasedWhenClosed_(False)  # Python's reference is counted already
        self.window.setTitle_("lazymlx")
        self.window.setMinSize_(ak.NSMakeSize(640, 420))
        self.build(actions)
        self.window.center()
        self.window.makeKeyAndOrderFront_(None)

    def build(self, actions: Actions) -> None:
        inner, right = WIDTH - 2 * EDGE, WIDTH - EDGE - 172
        self.open_button = self.add_button("Open…", actions, "chooseDocument:", EDGE, HEIGHT - 44, HIGH)
        self.status = self.add(ak.NSTextField.labelWithString_(""), EDGE + 100, HEIGHT - 38, inner - 100, 20, HIGH)
        self.bar = self.add(ak.NSProgressIndicator.alloc().init(), EDGE, HEIGHT - 66, inner, 12, HIGH)
        self.bar.setIndeterminate_(False)
        self.bar.setMaxValue_(1.0)
        scroll = ak.NSTextView.scrollableTextView()
        self.add(scroll, EDGE, 130, inner, HEIGHT - 204, ak.NSViewHeightSizable)
        self.text = scroll.documentView()
        self.text.setEditable_(False)
        self.text.setTextContainerInset_(ak.NSMakeSize(8, 8))
        self.costs = self.add(ak.NSTextField.wrappingLabelWithString_(""), EDGE, 56, inner, 66, LOW)
        self.costs.setTextColor_(ak.NSColor.secondaryLabelColor())
        self.question = self.add(ak.NSTextField.alloc().init(), EDGE, 18, inner - 180, 24, LOW)
        self.question.setPlaceholderString_("Ask about the document")
        self.question.setTarget_(actions)
        self.question.setAction_("askQuestion:")
        corner = LOW | ak.NSViewMinXMargin
        self.ask_button = self.add_button("Ask", actions, "askQuestion:", right, 14, corner)
        self.stop_button = self.add_button("Stop", actions, "stopWork:", right + 88, 14, corner)

    def add(self, view: Any, x: float, y: float, width: float, height: float, stays: int) -> Any:
        """Place a view that grows with the window's width."""
        view.setFrame_(ak.NSMakeRect(x, y, width, height))
        view.setAutoresizingMask_(ak.NSViewWidthSizable | stays)
        self.window.contentView().addSubview_(view)
        return view

    def add_button(self, title: str, actions: Actions, action: str, x: float, y: float, stays: int) -> Any:
        button = ak.NSButton.buttonWithTitle_target_action_(title, actions, action)
        self.add(button, x, y, 84, TALL, stays).setAutoresizingMask_(stays)
        return button

    def choose(self) -> None:
        panel = ak.NSOpenPanel.openPanel()
        if panel.runModal() == ak.NSModalResponseOK:
            self.controller.open(Path(panel.URL().path()))

    def enable(self, *, open: bool = False, ask: bool = False, stop: bool = False) -> None:
        self.open_button.setEnabled_(open)
        self.ask_button.setEnabled_(ask)
        self.stop_button.setEnabled_(stop)

    def name_model(self, name: str) -> None:
        self.window.setSubtitle_(name)

    def name_document(self, name: str) -> None:
        self.window.setTitle_(name)

    def progress(self, fraction: float, status: str) -> None:
        self.bar.setDoubleValue_(fraction)
        self.status.setStringValue_(status)

    def write(self, text: str, style: str) -> None:
        bold, colours = ak.NSFont.boldSystemFontOfSize_(14), {"error": ak.NSColor.systemRedColor()}
        attributes = {
            ak.NSFontAttributeName: bold if style == "question" else ak.NSFont.systemFontOfSize_(14),
            ak.NSForegroundColorAttributeName: colours.get(style, ak.NSColor.labelColor()),
        }
        text = f"\n{text}" if style == "question" else text
        more = ak.NSAttributedString.alloc().initWithString_attributes_(text, attributes)
        self.text.textStorage().appendAttributedString_(more)
        self.text.scrollRangeToVisible_(ak.NSMakeRange(self.text.textStorage().length(), 0))

    def clear(self) -> None:
        self.text.setString_("")

    def show_costs(self, answer: Answered | None) -> None:
        lines = []
        if answer is not None:
            lines += [f"{layers}: {tokens:,} of {total:,} tokens" for layers, tokens, total in answer.kept()]
            lines.append(", ".join(f"{value} {caption}" for value, caption in answer.figures()))
        self.costs.setStringValue_("\n".join(lines))

    def take_question(self) -> str:
        question = self.question.stringValue().strip()
        if not self.ask_button.isEnabled():
            return ""
        self.question.setStringValue_("")
        return question


def menu_bar(actions: Actions) -> Any:
    """The menus. An item without a target acts on what has the focus, which makes copy and paste work."""
    bar = ak.NSMenu.alloc().init()
    for title, items in (
        ("lazymlx", [("Quit lazymlx", "terminate:", "q", None)]),
        ("File", [("Open…", "chooseDocument:", "o", actions), ("Stop", "stopWork:", ".", actions)]),
        ("Edit", [("Cut", "cut:", "x", None), ("Copy", "copy:", "c", None), ("Paste", "paste:", "v", None)]),
    ):
        menu = ak.NSMenu.alloc().initWithTitle_(title)
        for name, action, key, target in items:
            menu.addItemWithTitle_action_keyEquivalent_(name, action, key).setTarget_(target)
        holder = ak.NSMenuItem.alloc().init()
        holder.setSubmenu_(menu)
        bar.addItem_(holder)
    return bar
