"""Documents that tests run.

A block is indented. One that is a file is preceded by its name, `NAME` and a colon at a line's end; in any other block each line that
starts with "$ " is a shell command, and the lines behind it are what that prints ("..." for anything).
"""

import re


class Section:
    """A section's files, by name, and its commands with what they print, in the order of the document."""

    def __init__(self, title):
        self.title = title
        self.steps = []

    def add_file(self, name, lines):
        self.steps.append(("file", name, "\n".join(lines) + "\n"))

    def add_commands(self, lines):
        for line in lines:
            if line.startswith("$ "):
                self.steps.append(("command", line[2:], []))
            else:
                assert self.steps and self.steps[-1][0] == "command", f"{self.title}: output of no command: {line}"
                self.steps[-1][2].append(line)

    def of(self, kind):
        return [step for step in self.steps if step[0] == kind]


def blocks(text):
    """Each indented block, as the line of text before it and its lines. Commands behind a blank line are another block."""
    before, block = "", []
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    $ ") and block and not block[-1]:
            yield before, block[:-1]
            block = [line[4:]]
        elif line.startswith("    "):
            block.append(line[4:])
        elif block and not line:
            block.append("")
        else:
            while block and not block[-1]:
                block.pop()
            if block:
                yield before, block
            block = []
            if line:
                before = line


def sections(text):
    found = []
    for part in re.split(r"(?m)^(?=##? )", text):
        if not part.strip():
            continue
        section = Section(part.splitlines()[0].lstrip("# "))
        for before, block in blocks(part):
            name = re.search(r"`([^` ]+)`(?:,[^:`]*(?:`[^`]*`[^:`]*)*)?:$", before)
            if block[0].startswith("$ "):
                section.add_commands(block)
            else:
                assert name, f"{section.title}: neither a file nor a command: {block[0]}"
                section.add_file(name[1], block)
        found.append(section)
    return found


def expected(lines):
    return re.compile(".*".join(re.escape(piece) for piece in "\n".join(lines).split("...")), re.DOTALL)
