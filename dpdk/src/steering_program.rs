//! The eBPF program that chooses a tap's queue: its instructions, as a list.
//!
//! The kernel runs it for every frame that goes into the tap, with the frame's Ethernet header at offset 0, and takes
//! its result as the queue. A read beyond the frame's end returns 0, queue 0: that is eBPF's rule for the `LD` class.
//!
//! ```text
//! no IPv4, no IPv6 (ARP, …)                    → 0
//! destination in the map, for any protocol     → the map's queue
//! destination in the map, for one UDP port:
//!     UDP to that port, no later fragment      → the map's queue
//!     else (ping to the address, BGP, …)       → 0
//! everything else                              → hash(source address's low word, source port) % spread
//! ```

/// One eBPF instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination register in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

// Instruction codes, linux/bpf_common.h and linux/bpf.h.
const LD_IMM64: u8 = 0x18;
const LD_ABS_WORD: u8 = 0x20;
const LD_ABS_HALF: u8 = 0x28;
const LD_ABS_BYTE: u8 = 0x30;
const LD_IND_HALF: u8 = 0x48;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD_IMM: u8 = 0x62;
const STORE_WORD: u8 = 0x63;
const ALU64_MOV: u8 = 0xbf;
const ALU64_MOV_IMM: u8 = 0xb7;
const ALU64_ADD_IMM: u8 = 0x07;
const ALU32_AND_IMM: u8 = 0x54;
const ALU32_LSH_IMM: u8 = 0x64;
const ALU32_RSH_IMM: u8 = 0x74;
const ALU32_MUL_IMM: u8 = 0x24;
const ALU32_XOR: u8 = 0xac;
const ALU32_MOD_IMM: u8 = 0x94;
const JUMP: u8 = 0x05;
const JUMP_EQ_IMM: u8 = 0x15;
const JUMP_NE_IMM: u8 = 0x55;
const JUMP_NE: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// The source register of a [`LD_IMM64`] whose value is a map's file descriptor.
const PSEUDO_MAP_FD: u8 = 1;
/// Helper functions, linux/bpf.h.
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;

// Registers. R0 takes results, R1 to R5 arguments (calls and packet loads destroy them), R6 to R9 stay.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
/// The frame; packet loads want it here.
const FRAME: u8 = 6;
/// The low word of the source address; after the lookup the UDP port of the map's entry.
const SOURCE: u8 = 7;
/// The protocol above IP; 0 for later fragments, which carry no ports.
const PROTOCOL: u8 = 8;
/// Offset of the header above IP.
const TRANSPORT: u8 = 9;
/// The stack's upper end.
const STACK: u8 = 10;

/// Where on the stack the key of the lookup stands: the 16 bytes of the destination.
const KEY: i16 = -16;
/// Where on the stack the queue of the map's entry stands.
const QUEUE: i16 = -24;

const ETHERTYPE_IPV4: i32 = 0x0800;
const ETHERTYPE_IPV6: i32 = 0x86dd;
const PROTOCOL_TCP: i32 = 6;
const PROTOCOL_UDP: i32 = 17;

/// A place in the program that jumps go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Ipv4,
    FirstFragment,
    Lookup,
    OnePort,
    Spread,
    SpreadPort,
    SpreadHash,
    Zero,
}

/// A program being written.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    labels: Vec<(Label, usize)>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn put(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction { code, registers: source << 4 | destination, offset, immediate });
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.instructions.len()));
    }

    fn jump(&mut self, code: u8, destination: u8, source: u8, immediate: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.put(code, destination, source, 0, immediate);
    }

    /// Copies `length` bytes of the frame to the stack; to [`Label::Zero`] if the frame is too short.
    fn load_bytes(&mut self, frame_offset: i32, stack_offset: i16, length: i32) {
        self.put(ALU64_MOV, R1, FRAME, 0, 0);
        self.put(ALU64_MOV_IMM, R2, 0, 0, frame_offset);
        self.put(ALU64_MOV, R3, STACK, 0, 0);
        self.put(ALU64_ADD_IMM, R3, 0, 0, i32::from(stack_offset));
        self.put(ALU64_MOV_IMM, R4, 0, 0, length);
        self.put(CALL, 0, 0, 0, SKB_LOAD_BYTES);
        self.jump(JUMP_NE_IMM, R0, 0, 0, Label::Zero);
    }

    /// The instructions, with every jump's distance.
    fn finish(mut self) -> Vec<Instruction> {
        for &(at, label) in &self.jumps {
            let found = self.labels.iter().find(|(name, _)| *name == label);
            let &(_, target) = found.expect("every label is placed by the program below");
            self.instructions[at].offset = (target - at - 1) as i16;
        }
        self.instructions
    }
}

/// The program over a map of 16-byte destinations (IPv4 as IPv4-mapped) to a 32-bit queue and a 32-bit UDP port, 0 for
/// any protocol. `spread` is at least 1.
pub(crate) fn steering_program(map_fd: i32, spread: u16) -> Vec<Instruction> {
    let mut program = Assembler::default();
    program.put(ALU64_MOV, FRAME, R1, 0, 0);
    program.put(LD_ABS_HALF, 0, 0, 0, 12);
    program.jump(JUMP_EQ_IMM, R0, 0, ETHERTYPE_IPV4, Label::Ipv4);
    program.jump(JUMP_NE_IMM, R0, 0, ETHERTYPE_IPV6, Label::Zero);
    read_ipv6(&mut program);
    program.jump(JUMP, 0, 0, 0, Label::Lookup);
    program.label(Label::Ipv4);
    read_ipv4(&mut program);
    program.label(Label::Lookup);
    look_up(&mut program, map_fd);
    program.label(Label::Spread);
    spread_rest(&mut program, i32::from(spread));
    program.label(Label::Zero);
    program.put(ALU64_MOV_IMM, R0, 0, 0, 0);
    program.put(EXIT, 0, 0, 0, 0);
    program.finish()
}

/// Destination, source, protocol and transport offset of an IPv6 packet at offset 14 (RFC 8200, section 3).
fn read_ipv6(program: &mut Assembler) {
    program.load_bytes(14 + 24, KEY, 16);
    program.put(LD_ABS_WORD, 0, 0, 0, 14 + 8 + 12);
    program.put(ALU64_MOV, SOURCE, R0, 0, 0);
    program.put(LD_ABS_BYTE, 0, 0, 0, 14 + 6);
    program.put(ALU64_MOV, PROTOCOL, R0, 0, 0);
    program.put(ALU64_MOV_IMM, TRANSPORT, 0, 0, 14 + 40);
}

/// The same of an IPv4 packet at offset 14 (RFC 791, section 3.1).
fn read_ipv4(program: &mut Assembler) {
    // ::ffff:a.b.c.d
    program.put(STORE_WORD_IMM, STACK, 0, KEY, 0);
    program.put(STORE_WORD_IMM, STACK, 0, KEY + 4, 0);
    program.put(STORE_WORD_IMM, STACK, 0, KEY + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    program.load_bytes(14 + 16, KEY + 12, 4);
    program.put(LD_ABS_WORD, 0, 0, 0, 14 + 12);
    program.put(ALU64_MOV, SOURCE, R0, 0, 0);
    program.put(LD_ABS_BYTE, 0, 0, 0, 14);
    program.put(ALU32_AND_IMM, R0, 0, 0, 0x0f);
    program.put(ALU32_LSH_IMM, R0, 0, 0, 2);
    program.put(ALU64_MOV, TRANSPORT, R0, 0, 0);
    program.put(ALU64_ADD_IMM, TRANSPORT, 0, 0, 14);
    program.put(LD_ABS_BYTE, 0, 0, 0, 14 + 9);
    program.put(ALU64_MOV, PROTOCOL, R0, 0, 0);
    program.put(LD_ABS_HALF, 0, 0, 0, 14 + 6);
    program.put(ALU32_AND_IMM, R0, 0, 0, 0x1fff);
    program.jump(JUMP_EQ_IMM, R0, 0, 0, Label::FirstFragment);
    program.put(ALU64_MOV_IMM, PROTOCOL, 0, 0, 0);
    program.label(Label::FirstFragment);
}

/// Returns the map's queue if the destination is in it and its entry is for this packet.
fn look_up(program: &mut Assembler, map_fd: i32) {
    program.put(LD_IMM64, R1, PSEUDO_MAP_FD, 0, map_fd);
    program.put(0, 0, 0, 0, 0);
    program.put(ALU64_MOV, R2, STACK, 0, 0);
    program.put(ALU64_ADD_IMM, R2, 0, 0, i32::from(KEY));
    program.put(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
    program.jump(JUMP_EQ_IMM, R0, 0, 0, Label::Spread);
    program.put(LOAD_WORD, R1, R0, 0, 0);
    program.put(LOAD_WORD, R2, R0, 4, 0);
    program.jump(JUMP_NE_IMM, R2, 0, 0, Label::OnePort);
    program.put(ALU64_MOV, R0, R1, 0, 0);
    program.put(EXIT, 0, 0, 0, 0);
    program.label(Label::OnePort);
    program.jump(JUMP_NE_IMM, PROTOCOL, 0, PROTOCOL_UDP, Label::Zero);
    program.put(STORE_WORD, STACK, R1, QUEUE, 0);
    program.put(ALU64_MOV, SOURCE, R2, 0, 0);
    program.put(LD_IND_HALF, 0, TRANSPORT, 0, 2);
    program.jump(JUMP_NE, R0, SOURCE, 0, Label::Zero);
    program.put(LOAD_WORD, R0, STACK, QUEUE, 0);
    program.put(EXIT, 0, 0, 0, 0);
}

/// Returns a queue below `spread`, by source address and, if there is one, source port.
fn spread_rest(program: &mut Assembler, spread: i32) {
    program.put(ALU64_MOV_IMM, R0, 0, 0, 0);
    program.jump(JUMP_EQ_IMM, PROTOCOL, 0, PROTOCOL_TCP, Label::SpreadPort);
    program.jump(JUMP_NE_IMM, PROTOCOL, 0, PROTOCOL_UDP, Label::SpreadHash);
    program.label(Label::SpreadPort);
    program.put(LD_IND_HALF, 0, TRANSPORT, 0, 0);
    program.label(Label::SpreadHash);
    // Fibonacci hashing, twice: 2^32 over the golden ratio.
    program.put(ALU32_MUL_IMM, R0, 0, 0, 0x9e37_79b1_u32 as i32);
    program.put(ALU32_XOR, R0, SOURCE, 0, 0);
    program.put(ALU32_MUL_IMM, R0, 0, 0, 0x9e37_79b1_u32 as i32);
    program.put(ALU32_RSH_IMM, R0, 0, 0, 16);
    program.put(ALU32_MOD_IMM, R0, 0, 0, spread);
    program.put(EXIT, 0, 0, 0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_goes_forward_and_stays_inside() {
        let program = steering_program(3, 2);
        for (at, instruction) in program.iter().enumerate() {
            let jumps = matches!(instruction.code, JUMP | JUMP_EQ_IMM | JUMP_NE_IMM | JUMP_NE);
            assert!(
                !jumps || instruction.offset > 0 && at + 1 + (instruction.offset as usize) < program.len()
            );
        }
    }

    #[test]
    fn the_map_and_the_spread_stand_in_the_program() {
        let program = steering_program(77, 5);
        assert!(
            program
                .iter()
                .any(|i| i.code == LD_IMM64 && i.immediate == 77 && i.registers >> 4 == PSEUDO_MAP_FD)
        );
        assert!(program.iter().any(|i| i.code == ALU32_MOD_IMM && i.immediate == 5));
    }
}
