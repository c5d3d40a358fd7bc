    .section .text.start
    .globl _start
_start:
    la sp, stack
    call main
halt:
    j halt

    .section .rodata
    .globl image
    .globl image_end
    .balign 8
image:
    .incbin "program.img"
image_end:
