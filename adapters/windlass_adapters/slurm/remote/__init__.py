"""The program on the login node: all that the daemon ever runs there (hops 5 and 7).

``timeout -k 5 N python3 -I -S bin/remote-DIGEST/run.py`` reads one request on stdin, a line of JSON
and whatever files belong to it, answers it with a line of JSON between two marks, and ends. It
keeps nothing in memory, works below one folder, needs Python 3.6 and nothing else, and asks the
controller once for each request, however many runs it is about.

    jobs/OWNER/TOKEN/  order.json, words, environ.sh, ...   written once, by rename
                       work/ in/ log/                                    the program's
                       claim -> JOBID    made by the job, or by a cancellation: whoever has it
                       rc                how the program ended, by whom
                       submitting, jobid before and after sbatch
    cas/sha256/ab/...  files by content;  bin/ this program and the job's script;  trash/
"""
