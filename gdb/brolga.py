# GDB's own disassembler knows one code size for a whole session. With this file, `x/i`, `disassemble`
# and `layout asm` show 16- and 32-bit code of a 64-bit processor rightly:
#
#     (gdb) source gdb/brolga.py

import gdb
import gdb.disassembler


class Brolga(gdb.disassembler.Disassembler):
    """Asks the machine for what is not 64-bit code."""

    def __init__(self):
        super().__init__("brolga")

    def __call__(self, info):
        if int(gdb.newest_frame().read_register("code_bits")) == 64:
            return None
        answer = gdb.execute(f"monitor disas {info.address:#x} 1", to_string=True)
        fields = answer.split(maxsplit=3)
        if len(fields) < 4 or not fields[0].startswith("0x"):
            return None
        return gdb.disassembler.DisassemblerResult(len(fields[2]) // 2, fields[3].strip())


gdb.disassembler.register_disassembler(Brolga(), "i386:x86-64")
