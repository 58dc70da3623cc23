//! Registers of the PrimeCell UART PL011 r1p4 (Arm DDI 0183, chapter 3). Types only.

#![forbid(unsafe_code)]

use bitflags::bitflags;

/// Register offsets (table 3-1).
pub mod offset {
    /// Data, UARTDR.
    pub const DR: u64 = 0x000;
    /// Receive status and error clear, UARTRSR/UARTECR.
    pub const RSR: u64 = 0x004;
    /// Flags, UARTFR.
    pub const FR: u64 = 0x018;
    /// IrDA low-power counter, UARTILPR.
    pub const ILPR: u64 = 0x020;
    /// Integer baud rate, UARTIBRD.
    pub const IBRD: u64 = 0x024;
    /// Fractional baud rate, UARTFBRD.
    pub const FBRD: u64 = 0x028;
    /// Line control, UARTLCR_H.
    pub const LCR_H: u64 = 0x02c;
    /// Control, UARTCR.
    pub const CR: u64 = 0x030;
    /// Interrupt FIFO level select, UARTIFLS.
    pub const IFLS: u64 = 0x034;
    /// Interrupt mask, UARTIMSC.
    pub const IMSC: u64 = 0x038;
    /// Raw interrupt status, UARTRIS.
    pub const RIS: u64 = 0x03c;
    /// Masked interrupt status, UARTMIS.
    pub const MIS: u64 = 0x040;
    /// Interrupt clear, UARTICR.
    pub const ICR: u64 = 0x044;
    /// DMA control, UARTDMACR.
    pub const DMACR: u64 = 0x048;
    /// UARTPeriphID0; seven more identification registers follow, up to UARTPCellID3 at 0xffc.
    pub const PERIPH_ID0: u64 = 0xfe0;
}

/// UARTPeriphID0-3 and UARTPCellID0-3 (3.3.15 to 3.3.22): part 0x011, designer 0x41, revision 1 (r1p4: FIFOs of 16).
pub const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

bitflags! {
    /// UARTFR (3.3.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Clear to send.
        const CTS = 1 << 0;
        /// Data set ready.
        const DSR = 1 << 1;
        /// Data carrier detect.
        const DCD = 1 << 2;
        /// The receive FIFO is empty.
        const RXFE = 1 << 4;
        /// The receive FIFO is full.
        const RXFF = 1 << 6;
        /// The transmit FIFO is empty.
        const TXFE = 1 << 7;
    }

    /// UARTLCR_H (3.3.7); the other bits are about the line and have no effect here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LineControl: u32 {
        /// The FIFOs are enabled; without, each is one character deep.
        const FEN = 1 << 4;
        /// Eight bits in a character.
        const WLEN_8 = 0b11 << 5;
    }

    /// UARTCR (3.3.8).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u32 {
        /// The UART is enabled.
        const UARTEN = 1 << 0;
        /// What is transmitted is received.
        const LBE = 1 << 7;
        /// The transmitter is enabled.
        const TXE = 1 << 8;
        /// The receiver is enabled.
        const RXE = 1 << 9;
    }

    /// Interrupt sources in UARTIMSC, UARTRIS, UARTMIS and UARTICR (3.3.10 to 3.3.13).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Interrupts: u32 {
        /// The receive FIFO reached its level.
        const RX = 1 << 4;
        /// The transmit FIFO fell to its level.
        const TX = 1 << 5;
        /// Received characters wait, and no more came.
        const RT = 1 << 6;
        /// All eleven sources.
        const ALL = 0x7ff;
    }
}
