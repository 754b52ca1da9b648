import _io;r=_io.BufferedReader(_io.FileIO(0,closefd=False),1).read;exec(r(int.from_bytes(r(4),"big")))
