"""Verilog of Yosys as a simulator likes it."""

import re
from collections import Counter

_NAME = r"\\\S+ |[A-Za-z_]\w*"
_REGISTER = re.compile(rf"  always @\(posedge (\S+)\)\n    ({_NAME}) *<= (\\\$\d+ );\n")
_BLOCK = re.compile(r"  always @\* begin\n(.*?)\n  end\n", re.S)
_ASSIGNMENT = re.compile(rf"^( +)({_NAME}) *(\[\d+(?::\d+)?\])? *= (.*);$")


def clocked(text: str) -> str:
    """``text`` of Yosys with the process that computes a register's next value moved into the register's own process.

    Yosys writes ``always @* begin next = ...; end`` and ``always @(posedge clk) register <= next;``. A simulator evaluates the former
    whenever anything in it may have changed, the reset among it, even while the register has no clock edge.
    """
    return "endmodule".join(_clocked_module(module) for module in text.split("endmodule"))


def _clocked_module(text: str) -> str:
    registers = {next_value: (clock, register) for clock, register, next_value in _REGISTER.findall(text)}
    uses = Counter(re.findall(r"\\\$\d+ ", text))
    moved = set()

    def move(block: re.Match) -> str:
        lines = [
            (line, _ASSIGNMENT.match(line)) for line in block[1].split("\n") if "$auto$verilog_backend" not in line
        ]
        targets = [assignment[2] for _, assignment in lines if assignment]
        name = targets[0]
        # Declared, assigned here and nothing else, and copied to the register.
        if set(targets) != {name} or name not in registers or uses[name] != len(targets) + 2:
            return block[0]
        moved.add(name)
        clock, register = registers[name]
        body = []
        for line, assignment in lines:
            if assignment is None:
                body.append(line)
            elif assignment[3] or assignment[4].strip() != register.strip():
                body.append(f"{assignment[1]}{register}{assignment[3] or ''} <= {assignment[4]};")
            elif body and body[-1].endswith(":"):  # a case that holds the value
                body.append(f"{assignment[1]};")
        return "\n".join([f"  always @(posedge {clock}) begin", *body, "  end", ""])

    text = _BLOCK.sub(move, text)
    text = _REGISTER.sub(lambda register: "" if register[3] in moved else register[0], text)
    return re.sub(
        r"  reg (?:\[\d+:\d+\] )?(\\\$\d+ );\n", lambda declared: "" if declared[1] in moved else declared[0], text
    )
