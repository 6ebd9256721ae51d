"""What the assignment demands of `rope llama optimizer lora classifier`, whoever wrote them.

The tests know these five by the assignment's own names, and judge each part by itself: what a part
is built from is replaced by reference code, so that one mistake makes one part red. They also need
`config base_llama tokenizer`, and nothing else of this repository.

    python -m pytest -p no:cacheprovider --rootdir . -c /dev/null assignment --report FILE

in a folder with the modules and a copy of this one writes one JSON object a line to FILE: the
parts, then each test when it starts and when it ends. `--without=PART` leaves out a part.
"""
