// This file was generated from corehold-types by `cargo xtask gen`. Do not edit it.
// JSON as serde writes it, for the compiler to compare with the bindings.
import type {
  ActivityRequest,
  ActivityResponse,
  AuditEvent,
  AuditReadRequest,
  AuditReadResponse,
  Cancel,
  ClaimRequest,
  ClaimResponse,
  CommandEvent,
  CommandGetRequest,
  CommandGetResponse,
  CommandInputRequest,
  CommandInputResponse,
  CommandListRequest,
  CommandListResponse,
  CommandOutputRequest,
  CommandRequest,
  CommandResizeRequest,
  CommandResizeResponse,
  CommandResponse,
  CommandSearchEvent,
  CommandSearchRequest,
  CommandSearchResponse,
  CommandSignalRequest,
  CommandSignalResponse,
  CopyRequest,
  CopyResponse,
  Credit,
  EditRequest,
  EditResponse,
  ExtractEvent,
  ExtractRequest,
  ExtractResponse,
  FileWritten,
  FindRequest,
  FindResponse,
  Health,
  InfoRequest,
  InfoResponse,
  ListRequest,
  ListResponse,
  MkdirRequest,
  MkdirResponse,
  MoveRequest,
  MoveResponse,
  PortsEvent,
  PortsRequest,
  PortsResponse,
  Problem,
  ReadRequest,
  ReadResponse,
  Refresh,
  RemoveRequest,
  RemoveResponse,
  RpcError,
  SearchEvent,
  SearchRequest,
  SearchResponse,
  StatRequest,
  StatResponse,
  StreamEnd,
  StreamEvent,
  StreamOpened,
  WatchEvent,
  WatchRequest,
  WatchResponse,
  WriteRequest,
  WriteResponse,
} from "../../bindings/index.js";

export const someInfoRequest1: InfoRequest = {};

export const someInfoResponse1: InfoResponse = {
  "bootId": "b",
  "features": [
    "x"
  ],
  "guards": [
    "openat2"
  ],
  "instance": "i",
  "limits": [
    {
      "name": "readBytes",
      "unit": "bytes",
      "value": 9007199254740991,
      "variable": "COREHOLD_READ_BYTES"
    }
  ],
  "protocol": 1,
  "root": "/app",
  "tools": [
    {
      "name": "read",
      "scope": "read",
      "since": "0.1",
      "summary": "Reads."
    }
  ],
  "version": "0.1.0"
};

export const someInfoResponse2: InfoResponse = {
  "bootId": "b",
  "claimed": "1970-01-01T00:00:00.000000000Z",
  "features": [
    "x"
  ],
  "guards": [
    "openat2"
  ],
  "instance": "i",
  "limits": [
    {
      "name": "readBytes",
      "unit": "bytes",
      "value": 9007199254740991,
      "variable": "COREHOLD_READ_BYTES"
    }
  ],
  "protocol": 1,
  "root": "/app",
  "tools": [
    {
      "name": "read",
      "scope": "read",
      "since": "0.1",
      "summary": "Reads."
    }
  ],
  "version": "0.1.0",
  "workspace": "w"
};

export const someClaimRequest1: ClaimRequest = {
  "claimId": "abcdefgh",
  "workspace": "w"
};

export const someClaimRequest2: ClaimRequest = {
  "claimId": "abcdefgh",
  "env": {
    "A": "b"
  },
  "workspace": "w"
};

export const someClaimResponse1: ClaimResponse = {
  "bootId": "b",
  "claimed": "1970-01-01T00:00:00.000000000Z",
  "instance": "i",
  "workspace": "w"
};

export const someActivityRequest1: ActivityRequest = {};

export const someActivityResponse1: ActivityResponse = {
  "ended": [
    {
      "at": "1970-01-01T00:00:01.000000000Z",
      "source": "command"
    }
  ],
  "lastRequest": "1970-01-01T00:00:01.000000000Z",
  "now": "1970-01-01T00:00:02.000000000Z",
  "sources": [
    {
      "count": 9007199254740991,
      "labels": {
        "dev": 9007199254740991
      },
      "reason": "1 tunnel is open: port 4321",
      "since": "1970-01-01T00:00:00.000000000Z",
      "source": "tunnel"
    }
  ]
};

export const someActivityResponse2: ActivityResponse = {
  "idleSince": "1970-01-01T00:00:01.000000000Z",
  "now": "1970-01-01T00:00:02.000000000Z",
  "sources": []
};

export const someAuditReadRequest1: AuditReadRequest = {};

export const someAuditReadRequest2: AuditReadRequest = {
  "after": 9007199254740991,
  "command": "c1",
  "cursor": "1",
  "follow": false,
  "limit": 1,
  "path": "src",
  "since": "1970-01-01T00:00:00.000000000Z",
  "subject": "me",
  "tool": "edit"
};

export const someAuditReadResponse1: AuditReadResponse = {
  "cursor": "1",
  "gap": {
    "from": 1,
    "refusalsOnly": false,
    "to": 9007199254740991
  },
  "last": 9007199254740991,
  "records": [
    {
      "bytesIn": 9007199254740991,
      "bytesOut": 9007199254740991,
      "changed": {
        "bytes": 9007199254740991,
        "entries": 9007199254740991
      },
      "code": "VERSION_MISMATCH",
      "command": {
        "exit": {
          "code": -1,
          "signal": "SIGKILL",
          "stalled": false,
          "timedOut": true
        },
        "id": "c1"
      },
      "detail": "npm test",
      "durationMs": 9007199254740991,
      "outcome": "failed",
      "paths": [
        {
          "after": "2e",
          "before": "1f",
          "path": "src/a.rs"
        },
        {
          "path": "b"
        }
      ],
      "pathsOmitted": 1,
      "replayed": true,
      "requestId": "r1",
      "seq": 9007199254740991,
      "since": "1970-01-01T00:00:00.000000000Z",
      "subject": "me",
      "surface": "webSocket",
      "time": "1970-01-01T00:00:00.000000000Z",
      "times": 9007199254740991,
      "tool": "edit"
    },
    {
      "changed": {
        "entries": 0
      },
      "command": {
        "id": "c1"
      },
      "durationMs": 9007199254740991,
      "outcome": "ended",
      "replayed": false,
      "requestId": "r1",
      "seq": 9007199254740991,
      "surface": "http",
      "time": "1970-01-01T00:00:00.000000000Z",
      "tool": "edit"
    }
  ]
};

export const someAuditReadResponse2: AuditReadResponse = {
  "last": 0,
  "records": []
};

export const someRpcError1: RpcError = {
  "code": -32000,
  "data": {
    "code": "LIMIT_EXCEEDED",
    "context": {
      "limit": 9007199254740991,
      "nested": [
        {
          "a": 1
        }
      ],
      "variable": "COREHOLD_X"
    },
    "detail": "the answer exceeds the limit of 9007199254740991",
    "requestId": "r1",
    "retryable": false,
    "status": 413,
    "suggestion": "COREHOLD_X sets this limit",
    "title": "A limit was exceeded",
    "type": "about:blank"
  },
  "message": "a mistake"
};

export const someStreamOpened1: StreamOpened = {
  "id": 7,
  "stream": 1
};

export const someStreamEventOfCommandEvent1: StreamEvent<CommandEvent> = {
  "event": {
    "from": 1,
    "to": 9007199254740991,
    "type": "gap"
  },
  "stream": 1
};

export const someCredit1: Credit = {
  "bytes": 9007199254740991,
  "stream": 1
};

export const someCancel1: Cancel = {
  "id": "a"
};

export const someRefresh1: Refresh = {
  "token": "t"
};

export const someHealth1: Health = {
  "protocol": 1,
  "status": "shuttingDown",
  "uptimeMs": 9007199254740991,
  "version": "0.1.0"
};

export const someHealth2: Health = {
  "protocol": 1,
  "status": "ok",
  "uptimeMs": 9007199254740991,
  "version": "0.1.0"
};

export const someFileWritten1: FileWritten = {
  "created": true,
  "size": 9007199254740991,
  "version": "v"
};

export const someProblem1: Problem = {
  "code": "LIMIT_EXCEEDED",
  "context": {
    "limit": 9007199254740991,
    "nested": [
      {
        "a": 1
      }
    ],
    "variable": "COREHOLD_X"
  },
  "detail": "the answer exceeds the limit of 9007199254740991",
  "requestId": "r1",
  "retryable": false,
  "status": 413,
  "suggestion": "COREHOLD_X sets this limit",
  "title": "A limit was exceeded",
  "type": "about:blank"
};

export const someProblem2: Problem = {
  "code": "INTERNAL",
  "detail": "a mistake",
  "retryable": false,
  "status": 500,
  "title": "The agent made a mistake",
  "type": "about:blank"
};

export const someStreamEndOfCommandResponse1: StreamEnd<CommandResponse> = {
  "response": {
    "exit": {
      "code": -1,
      "cpuMs": 1,
      "durationMs": 9007199254740991,
      "oomKilled": true,
      "peakMemoryBytes": 9007199254740991,
      "signal": "SIGKILL",
      "stalled": false,
      "survivors": [
        7,
        8
      ],
      "timedOut": true
    },
    "id": "c1",
    "offset": 9007199254740991,
    "stderr": {
      "base64": "/w==",
      "omittedBytes": 0,
      "totalBytes": 0
    },
    "stdout": {
      "omittedBytes": 5,
      "tail": {
        "base64": "/w=="
      },
      "text": "head",
      "totalBytes": 9007199254740991
    }
  },
  "type": "end"
};

export const someStreamEndOfCommandResponse2: StreamEnd<CommandResponse> = {
  "problem": {
    "code": "LIMIT_EXCEEDED",
    "context": {
      "limit": 9007199254740991,
      "nested": [
        {
          "a": 1
        }
      ],
      "variable": "COREHOLD_X"
    },
    "detail": "the answer exceeds the limit of 9007199254740991",
    "requestId": "r1",
    "retryable": false,
    "status": 413,
    "suggestion": "COREHOLD_X sets this limit",
    "title": "A limit was exceeded",
    "type": "about:blank"
  },
  "type": "error"
};

export const someReadRequest1: ReadRequest = {
  "files": [
    {
      "lines": {
        "end": 9007199254740991,
        "start": 1
      },
      "path": "a"
    },
    {
      "bytes": {
        "length": 9007199254740991,
        "start": 0
      },
      "path": {
        "base64": "Y2Fm6Q=="
      }
    },
    {
      "lines": {
        "start": 1
      },
      "path": "b"
    }
  ],
  "maxBytes": 9007199254740991
};

export const someReadResponse1: ReadResponse = {
  "files": [
    {
      "binary": false,
      "encoding": "utf8Bom",
      "hash": "00",
      "lineEnding": "crLf",
      "path": "src/App.jsx",
      "size": 9007199254740991,
      "startByte": 9007199254740991,
      "startLine": 1,
      "status": "ok",
      "text": "a\r\n",
      "totalLines": 9007199254740991,
      "truncated": false,
      "version": "v"
    },
    {
      "base64": "/wA=",
      "binary": true,
      "encoding": "unknown",
      "path": {
        "base64": "Y2Fm6Q=="
      },
      "size": 9007199254740991,
      "startByte": 9007199254740991,
      "status": "ok",
      "truncated": true,
      "version": "v"
    },
    {
      "path": "gone",
      "problem": {
        "code": "NOT_FOUND",
        "detail": "no such file",
        "retryable": false,
        "status": 404,
        "title": "Not found",
        "type": "about:blank"
      },
      "status": "error"
    }
  ]
};

export const someListRequest1: ListRequest = {};

export const someListRequest2: ListRequest = {
  "cursor": "x",
  "depth": 4294967295,
  "limit": 1,
  "path": {
    "base64": "Y2Fm6Q=="
  }
};

export const someListResponse1: ListResponse = {
  "cursor": "x",
  "entries": [
    {
      "kind": "symlink",
      "mode": 511,
      "modified": "2023-11-14T22:13:20.000000005Z",
      "path": {
        "base64": "Y2Fm6Q=="
      },
      "size": 9007199254740991,
      "target": "to"
    },
    {
      "kind": "file",
      "mode": 511,
      "modified": "2023-11-14T22:13:20.000000005Z",
      "path": {
        "base64": "Y2Fm6Q=="
      },
      "size": 9007199254740991
    }
  ]
};

export const someListResponse2: ListResponse = {
  "entries": []
};

export const someExtractRequest1: ExtractRequest = {
  "archive": {
    "inbox": "a.tar.gz"
  }
};

export const someExtractRequest2: ExtractRequest = {
  "archive": {
    "path": "a.tar"
  },
  "destination": "to",
  "expectedHash": "00",
  "remove": true
};

export const someExtractResponse1: ExtractResponse = {
  "bytes": 9007199254740991,
  "directories": 1,
  "durationMs": 3,
  "files": 9007199254740991,
  "symlinks": 2
};

export const somePortsRequest1: PortsRequest = {};

export const somePortsRequest2: PortsRequest = {
  "cursor": "80/::",
  "intervalMs": 250,
  "limit": 1,
  "timeoutMs": 1,
  "waitFor": 3000
};

export const somePortsResponse1: PortsResponse = {
  "ports": []
};

export const somePortsResponse2: PortsResponse = {
  "cursor": "80/::",
  "opened": true,
  "ports": [
    {
      "address": "::1",
      "command": "aaaaaaaaaaaaaaaa",
      "loopback": true,
      "pid": 7,
      "port": 65535
    },
    {
      "address": "::1",
      "loopback": true,
      "port": 65535
    }
  ]
};

export const someWatchRequest1: WatchRequest = {};

export const someWatchRequest2: WatchRequest = {
  "debounceMs": 50,
  "globs": [
    "*.rs"
  ],
  "hidden": true,
  "ignoreFiles": true,
  "path": "src",
  "recursive": true,
  "timeoutMs": 1
};

export const someWatchResponse1: WatchResponse = {
  "changes": []
};

export const someWatchResponse2: WatchResponse = {
  "changes": [
    {
      "path": "a",
      "type": "modified"
    }
  ]
};

export const someSearchRequest1: SearchRequest = {
  "pattern": "foo"
};

export const someSearchRequest2: SearchRequest = {
  "after": 4294967295,
  "before": 1,
  "binary": "text",
  "case": "smart",
  "columns": "utf16",
  "crlf": true,
  "dotAll": true,
  "encoding": "utf-16le",
  "follow": true,
  "globs": [
    "*.rs"
  ],
  "hidden": true,
  "ignoreFiles": false,
  "invert": false,
  "literal": true,
  "maxDepth": 1,
  "maxFileBytes": 9007199254740991,
  "maxLineBytes": 1,
  "maxMatches": 9007199254740991,
  "maxMatchesPerFile": 1,
  "multiline": true,
  "paths": [
    "src",
    {
      "base64": "Y2Fm6Q=="
    }
  ],
  "pattern": "foo",
  "report": "counts",
  "requireGit": true,
  "sorted": true,
  "timeoutMs": 9007199254740991,
  "types": [
    "rust"
  ],
  "typesNot": [
    "js"
  ],
  "wholeLine": false,
  "word": true
};

export const someSearchResponse1: SearchResponse = {
  "elapsedMs": 0,
  "files": [],
  "matchedFiles": 0,
  "matchedLines": 0,
  "searchedBytes": 0,
  "searchedFiles": 0,
  "skipped": {
    "binary": 0,
    "filtered": 0,
    "hidden": 0,
    "ignored": 0,
    "linksRefused": 0,
    "special": 0,
    "symlinks": 0,
    "tooLarge": 0,
    "unreadable": 0
  }
};

export const someSearchResponse2: SearchResponse = {
  "elapsedMs": 9007199254740991,
  "files": [
    {
      "lines": [
        {
          "line": 9007199254740991,
          "ranges": [
            [
              0,
              3
            ],
            [
              4,
              9007199254740991
            ]
          ],
          "text": "let x;",
          "type": "match"
        },
        {
          "base64": "//4=",
          "cut": {
            "hiddenMatches": 2,
            "length": 9007199254740991,
            "start": 7
          },
          "line": 1,
          "type": "context"
        }
      ],
      "matchedLines": 1,
      "path": "a.rs"
    },
    {
      "binaryOffset": 9007199254740991,
      "matchedLines": 9007199254740991,
      "path": {
        "base64": "Y2Fm6Q=="
      }
    }
  ],
  "matchedFiles": 2,
  "matchedLines": 9007199254740991,
  "searchedBytes": 9007199254740991,
  "searchedFiles": 9007199254740991,
  "skipped": {
    "binary": 9007199254740991,
    "filtered": 0,
    "hidden": 0,
    "ignored": 1,
    "linksRefused": 0,
    "special": 0,
    "symlinks": 0,
    "tooLarge": 0,
    "unreadable": 0
  },
  "troubles": [
    {
      "detail": "permission denied",
      "path": {
        "base64": "Y2Fm6Q=="
      }
    }
  ],
  "truncated": [
    "maxMatches",
    "maxMatchesPerFile",
    "timeout",
    "answerBytes"
  ]
};

export const someFindRequest1: FindRequest = {};

export const someFindRequest2: FindRequest = {
  "cursor": "x",
  "follow": true,
  "globs": [
    "*.rs"
  ],
  "hidden": true,
  "ignoreFiles": false,
  "kind": "any",
  "limit": 1,
  "maxDepth": 1,
  "path": {
    "base64": "Y2Fm6Q=="
  },
  "positions": true,
  "query": "main",
  "requireGit": true,
  "timeoutMs": 9007199254740991,
  "types": [
    "rust"
  ]
};

export const someFindResponse1: FindResponse = {
  "considered": 9007199254740991,
  "cursor": "x",
  "elapsedMs": 1,
  "entries": [
    {
      "kind": "file",
      "path": "src/main.rs",
      "positions": [
        0,
        1
      ],
      "score": 4294967295
    },
    {
      "kind": "directory",
      "path": {
        "base64": "Y2Fm6Q=="
      }
    }
  ],
  "timedOut": false,
  "total": 9007199254740991,
  "troubles": [
    {
      "detail": "permission denied",
      "path": "x"
    }
  ]
};

export const someFindResponse2: FindResponse = {
  "considered": 9007199254740991,
  "elapsedMs": 1,
  "entries": [],
  "timedOut": false,
  "total": 9007199254740991
};

export const someEditRequest1: EditRequest = {
  "files": [
    {
      "operations": [
        {
          "new": {
            "base64": "/w=="
          },
          "old": "a\r\n",
          "type": "replace"
        },
        {
          "all": false,
          "count": 9007199254740991,
          "exact": true,
          "new": {
            "base64": "/w=="
          },
          "old": "a\r\n",
          "type": "replace"
        },
        {
          "end": 9007199254740991,
          "start": 1,
          "text": "x",
          "type": "lines"
        },
        {
          "start": 1,
          "text": "",
          "type": "lines"
        },
        {
          "line": 9007199254740991,
          "text": "x\n",
          "type": "insert"
        },
        {
          "diff": "@@ -1 +1 @@\n-a\n+b\n",
          "fuzz": 2,
          "type": "diff"
        },
        {
          "diff": "",
          "type": "diff"
        },
        {
          "content": "",
          "mode": 493,
          "overwrite": true,
          "type": "create"
        },
        {
          "content": "",
          "type": "create"
        },
        {
          "type": "delete"
        },
        {
          "overwrite": true,
          "to": {
            "base64": "Y2Fm6Q=="
          },
          "type": "rename"
        },
        {
          "to": "b",
          "type": "rename"
        }
      ],
      "path": "a"
    }
  ]
};

export const someEditRequest2: EditRequest = {
  "contextLines": 0,
  "dryRun": true,
  "durable": true,
  "files": [
    {
      "expected": "v",
      "operations": [],
      "path": {
        "base64": "Y2Fm6Q=="
      }
    }
  ],
  "maxDiffBytes": 9007199254740991
};

export const someEditResponse1: EditResponse = {
  "dryRun": false,
  "files": [
    {
      "change": "renamed",
      "diff": "--- a/a\n",
      "diffTruncated": true,
      "displacedHunks": [
        {
          "fuzz": 2,
          "hunk": 1,
          "line": 9007199254740991,
          "offset": -3
        }
      ],
      "hash": "00",
      "linesAdded": 9007199254740991,
      "linesRemoved": 0,
      "otherNames": 1,
      "path": "a",
      "previousHash": "11",
      "renamedTo": {
        "base64": "Y2Fm6Q=="
      },
      "size": 9007199254740991,
      "version": "v"
    },
    {
      "change": "deleted",
      "diffTruncated": true,
      "linesAdded": 9007199254740991,
      "linesRemoved": 0,
      "path": "a",
      "size": 9007199254740991
    },
    {
      "change": "created",
      "diffTruncated": true,
      "linesAdded": 9007199254740991,
      "linesRemoved": 0,
      "path": "a",
      "size": 9007199254740991
    },
    {
      "change": "modified",
      "diffTruncated": true,
      "linesAdded": 9007199254740991,
      "linesRemoved": 0,
      "path": "a",
      "size": 9007199254740991
    },
    {
      "change": "unchanged",
      "diffTruncated": true,
      "linesAdded": 9007199254740991,
      "linesRemoved": 0,
      "path": "a",
      "size": 9007199254740991
    }
  ]
};

export const someWriteRequest1: WriteRequest = {
  "files": [
    {
      "content": "x",
      "path": "a"
    },
    {
      "content": {
        "base64": "/w=="
      },
      "expected": "v",
      "mode": 420,
      "overwrite": false,
      "path": {
        "base64": "Y2Fm6Q=="
      }
    }
  ]
};

export const someWriteRequest2: WriteRequest = {
  "durable": true,
  "files": []
};

export const someWriteResponse1: WriteResponse = {
  "files": [
    {
      "created": true,
      "hash": "00",
      "path": "a",
      "size": 9007199254740991,
      "status": "ok",
      "version": "v"
    },
    {
      "created": true,
      "hash": "00",
      "otherNames": 1,
      "path": "a",
      "previousHash": "11",
      "size": 9007199254740991,
      "status": "ok",
      "version": "v"
    },
    {
      "path": "dir",
      "problem": {
        "code": "NOT_A_FILE",
        "detail": "a directory",
        "retryable": false,
        "status": 409,
        "title": "Not a regular file",
        "type": "about:blank"
      },
      "status": "error"
    }
  ]
};

export const someStatRequest1: StatRequest = {
  "follow": true,
  "hash": true,
  "paths": [
    "a",
    {
      "base64": "Y2Fm6Q=="
    }
  ]
};

export const someStatRequest2: StatRequest = {
  "paths": []
};

export const someStatResponse1: StatResponse = {
  "entries": [
    {
      "changed": "1970-01-01T00:00:00.000000000Z",
      "gid": 0,
      "hash": "00",
      "kind": "file",
      "links": 1,
      "mode": 2541,
      "modified": "2023-11-14T22:13:20.000000005Z",
      "path": "a",
      "size": 9007199254740991,
      "status": "ok",
      "uid": 4294967295,
      "version": "v"
    },
    {
      "changed": "1970-01-01T00:00:00.000000000Z",
      "gid": 0,
      "kind": "symlink",
      "links": 1,
      "mode": 2541,
      "modified": "2023-11-14T22:13:20.000000005Z",
      "path": "a",
      "size": 9007199254740991,
      "status": "ok",
      "target": {
        "base64": "Y2Fm6Q=="
      },
      "uid": 4294967295
    },
    {
      "path": "gone",
      "problem": {
        "code": "NOT_FOUND",
        "detail": "no such file",
        "retryable": false,
        "status": 404,
        "title": "Not found",
        "type": "about:blank"
      },
      "status": "error"
    }
  ]
};

export const someMkdirRequest1: MkdirRequest = {
  "path": "a"
};

export const someMkdirRequest2: MkdirRequest = {
  "existOk": false,
  "mode": 448,
  "parents": false,
  "path": {
    "base64": "Y2Fm6Q=="
  }
};

export const someMkdirResponse1: MkdirResponse = {
  "created": 9007199254740991
};

export const someMoveRequest1: MoveRequest = {
  "from": "a",
  "to": {
    "base64": "Y2Fm6Q=="
  }
};

export const someMoveRequest2: MoveRequest = {
  "from": "a",
  "overwrite": true,
  "to": "b"
};

export const someMoveResponse1: MoveResponse = {
  "replaced": true
};

export const someCopyRequest1: CopyRequest = {
  "from": "a",
  "to": "b"
};

export const someCopyRequest2: CopyRequest = {
  "from": "a",
  "overwrite": true,
  "recursive": true,
  "to": "b"
};

export const someCopyResponse1: CopyResponse = {
  "bytes": 9007199254740991,
  "directories": 1,
  "files": 9007199254740991,
  "skipped": 3,
  "symlinks": 2
};

export const someRemoveRequest1: RemoveRequest = {
  "path": "a"
};

export const someRemoveRequest2: RemoveRequest = {
  "expected": "v",
  "missingOk": true,
  "path": {
    "base64": "Y2Fm6Q=="
  },
  "recursive": true
};

export const someRemoveResponse1: RemoveResponse = {
  "removed": 9007199254740991
};

export const someCommandRequest1: CommandRequest = {
  "line": "npm test"
};

export const someCommandRequest2: CommandRequest = {
  "argv": [
    "ls"
  ],
  "cwd": "src",
  "detach": true,
  "env": {
    "EMPTY": ""
  },
  "interactive": true,
  "label": "dev",
  "limits": {
    "cpuMs": 9007199254740991,
    "fileBytes": 4,
    "memoryBytes": 1,
    "openFiles": 3,
    "processes": 2
  },
  "maxOutputBytes": 1,
  "pty": {
    "columns": 80,
    "rows": 24,
    "term": "xterm"
  },
  "stallTimeoutMs": 0,
  "stdin": {
    "base64": "/w=="
  },
  "timeoutMs": 9007199254740991
};

export const someCommandResponse1: CommandResponse = {
  "exit": {
    "code": -1,
    "cpuMs": 1,
    "durationMs": 9007199254740991,
    "oomKilled": true,
    "peakMemoryBytes": 9007199254740991,
    "signal": "SIGKILL",
    "stalled": false,
    "survivors": [
      7,
      8
    ],
    "timedOut": true
  },
  "id": "c1",
  "offset": 9007199254740991,
  "stderr": {
    "base64": "/w==",
    "omittedBytes": 0,
    "totalBytes": 0
  },
  "stdout": {
    "omittedBytes": 5,
    "tail": {
      "base64": "/w=="
    },
    "text": "head",
    "totalBytes": 9007199254740991
  }
};

export const someCommandResponse2: CommandResponse = {
  "id": "c1",
  "offset": 0,
  "stderr": {
    "omittedBytes": 0,
    "text": "",
    "totalBytes": 0
  },
  "stdout": {
    "omittedBytes": 0,
    "text": "",
    "totalBytes": 0
  }
};

export const someCommandOutputRequest1: CommandOutputRequest = {
  "id": "c1"
};

export const someCommandOutputRequest2: CommandOutputRequest = {
  "follow": false,
  "id": "c1",
  "maxOutputBytes": 0,
  "offset": 9007199254740991
};

export const someCommandSignalRequest1: CommandSignalRequest = {
  "id": "c1",
  "signal": "SIGWINCH"
};

export const someCommandSignalResponse1: CommandSignalResponse = {
  "processes": 2
};

export const someCommandInputRequest1: CommandInputRequest = {
  "id": "c1"
};

export const someCommandInputRequest2: CommandInputRequest = {
  "data": {
    "base64": "/w=="
  },
  "end": true,
  "id": "c1",
  "timeoutMs": 9007199254740991
};

export const someCommandInputResponse1: CommandInputResponse = {
  "accepted": 9007199254740991,
  "complete": false
};

export const someCommandResizeRequest1: CommandResizeRequest = {
  "columns": 80,
  "id": "c1",
  "rows": 24
};

export const someCommandResizeResponse1: CommandResizeResponse = {};

export const someCommandGetRequest1: CommandGetRequest = {
  "id": "c1"
};

export const someCommandGetResponse1: CommandGetResponse = {
  "command": {
    "firstOffset": 0,
    "id": "c1",
    "line": "npm run dev",
    "offset": 9007199254740991,
    "pid": 2,
    "started": "1970-01-01T00:00:00.000000000Z"
  },
  "processes": 2,
  "stderrBytes": 0,
  "stdoutBytes": 9007199254740991,
  "takesInput": true,
  "terminal": {
    "columns": 80,
    "rows": 24
  }
};

export const someCommandListRequest1: CommandListRequest = {};

export const someCommandListRequest2: CommandListRequest = {
  "cursor": "x",
  "label": "dev",
  "limit": 1
};

export const someCommandListResponse1: CommandListResponse = {
  "commands": [
    {
      "firstOffset": 0,
      "id": "c1",
      "line": "npm run dev",
      "offset": 9007199254740991,
      "pid": 2,
      "started": "1970-01-01T00:00:00.000000000Z"
    },
    {
      "exit": {
        "code": -1,
        "cpuMs": 1,
        "durationMs": 9007199254740991,
        "oomKilled": true,
        "peakMemoryBytes": 9007199254740991,
        "signal": "SIGKILL",
        "stalled": false,
        "survivors": [
          7,
          8
        ],
        "timedOut": true
      },
      "firstOffset": 0,
      "id": "c1",
      "label": "dev",
      "line": "npm run dev",
      "offset": 9007199254740991,
      "pid": 2,
      "started": "1970-01-01T00:00:00.000000000Z"
    }
  ],
  "cursor": "x"
};

export const someCommandListResponse2: CommandListResponse = {
  "commands": []
};

export const someCommandSearchRequest1: CommandSearchRequest = {
  "id": "c1",
  "pattern": "x"
};

export const someCommandSearchRequest2: CommandSearchRequest = {
  "after": 0,
  "before": 100,
  "case": "smart",
  "columns": "utf16",
  "crlf": true,
  "id": "c1",
  "invert": true,
  "literal": true,
  "maxLineBytes": 1,
  "maxMatches": 1,
  "offset": 9007199254740991,
  "pattern": "x",
  "timeoutMs": 1,
  "wholeLine": false,
  "word": true
};

export const someCommandSearchResponse1: CommandSearchResponse = {
  "elapsedMs": 2,
  "end": 9007199254740991,
  "found": [
    {
      "from": 0,
      "to": 7,
      "type": "gap"
    },
    {
      "end": 9007199254740991,
      "offset": 7,
      "stream": "stdout",
      "text": "line",
      "type": "context"
    },
    {
      "base64": "/w==",
      "cut": {
        "hiddenMatches": 3,
        "length": 9007199254740991,
        "start": 1
      },
      "end": 9007199254740991,
      "offset": 7,
      "ranges": [
        [
          0,
          9007199254740991
        ]
      ],
      "stream": "stderr",
      "type": "match"
    }
  ],
  "id": "c1",
  "longLines": 1,
  "matchedLines": 1,
  "offset": 1,
  "searchedBytes": 9007199254740991,
  "truncated": [
    "maxMatches"
  ]
};

export const someCommandSearchResponse2: CommandSearchResponse = {
  "elapsedMs": 0,
  "end": 0,
  "found": [],
  "id": "c1",
  "longLines": 0,
  "matchedLines": 0,
  "offset": 0,
  "searchedBytes": 0
};

export const someAuditEvent1: AuditEvent = {
  "record": {
    "bytesIn": 9007199254740991,
    "bytesOut": 9007199254740991,
    "changed": {
      "bytes": 9007199254740991,
      "entries": 9007199254740991
    },
    "code": "VERSION_MISMATCH",
    "command": {
      "exit": {
        "code": -1,
        "signal": "SIGKILL",
        "stalled": false,
        "timedOut": true
      },
      "id": "c1"
    },
    "detail": "npm test",
    "durationMs": 9007199254740991,
    "outcome": "failed",
    "paths": [
      {
        "after": "2e",
        "before": "1f",
        "path": "src/a.rs"
      },
      {
        "path": "b"
      }
    ],
    "pathsOmitted": 1,
    "replayed": true,
    "requestId": "r1",
    "seq": 9007199254740991,
    "since": "1970-01-01T00:00:00.000000000Z",
    "subject": "me",
    "surface": "webSocket",
    "time": "1970-01-01T00:00:00.000000000Z",
    "times": 9007199254740991,
    "tool": "edit"
  },
  "type": "record"
};

export const someAuditEvent2: AuditEvent = {
  "gap": {
    "from": 1,
    "refusalsOnly": true,
    "to": 2
  },
  "type": "gap"
};

export const someExtractEvent1: ExtractEvent = {
  "bytes": 9007199254740991,
  "entries": 1,
  "type": "progress"
};

export const someWatchEvent1: WatchEvent = {
  "directories": 9007199254740991,
  "type": "ready"
};

export const someWatchEvent2: WatchEvent = {
  "directory": true,
  "path": "a",
  "type": "created"
};

export const someWatchEvent3: WatchEvent = {
  "path": "a",
  "type": "modified"
};

export const someWatchEvent4: WatchEvent = {
  "directory": false,
  "path": "a",
  "type": "removed"
};

export const someWatchEvent5: WatchEvent = {
  "directory": false,
  "from": "a",
  "to": "b",
  "type": "renamed"
};

export const someWatchEvent6: WatchEvent = {
  "path": ".",
  "reason": "overflow",
  "type": "resync"
};

export const somePortsEvent1: PortsEvent = {
  "type": "ready"
};

export const somePortsEvent2: PortsEvent = {
  "address": "::1",
  "command": "aaaaaaaaaaaaaaaa",
  "loopback": true,
  "pid": 7,
  "port": 65535,
  "type": "opened"
};

export const somePortsEvent3: PortsEvent = {
  "address": "::",
  "port": 1,
  "type": "closed"
};

export const someSearchEvent1: SearchEvent = {
  "line": 9007199254740991,
  "path": "a.rs",
  "ranges": [
    [
      0,
      3
    ],
    [
      4,
      9007199254740991
    ]
  ],
  "text": "let x;",
  "type": "match"
};

export const someSearchEvent2: SearchEvent = {
  "base64": "//4=",
  "cut": {
    "hiddenMatches": 2,
    "length": 9007199254740991,
    "start": 7
  },
  "line": 1,
  "path": {
    "base64": "Y2Fm6Q=="
  },
  "type": "context"
};

export const someSearchEvent3: SearchEvent = {
  "matchedLines": 9007199254740991,
  "path": {
    "base64": "Y2Fm6Q=="
  },
  "type": "file"
};

export const someSearchEvent4: SearchEvent = {
  "offset": 9007199254740991,
  "path": "a",
  "type": "binary"
};

export const someCommandEvent1: CommandEvent = {
  "id": "c1",
  "offset": 0,
  "pid": 2,
  "started": "2023-11-14T22:13:20.000000005Z",
  "type": "status"
};

export const someCommandEvent2: CommandEvent = {
  "data": {
    "text": "out"
  },
  "end": 9007199254740991,
  "offset": 0,
  "type": "stdout"
};

export const someCommandEvent3: CommandEvent = {
  "data": {
    "base64": "/w=="
  },
  "end": 9007199254740991,
  "offset": 0,
  "type": "stderr"
};

export const someCommandEvent4: CommandEvent = {
  "from": 0,
  "to": 9007199254740991,
  "type": "gap"
};

export const someCommandEvent5: CommandEvent = {
  "exit": {
    "durationMs": 0,
    "stalled": false,
    "timedOut": false
  },
  "offset": 0,
  "type": "exit"
};

export const someCommandSearchEvent1: CommandSearchEvent = {
  "from": 0,
  "to": 7,
  "type": "gap"
};

export const someCommandSearchEvent2: CommandSearchEvent = {
  "end": 9007199254740991,
  "offset": 7,
  "stream": "stdout",
  "text": "line",
  "type": "context"
};

export const someCommandSearchEvent3: CommandSearchEvent = {
  "base64": "/w==",
  "cut": {
    "hiddenMatches": 3,
    "length": 9007199254740991,
    "start": 1
  },
  "end": 9007199254740991,
  "offset": 7,
  "ranges": [
    [
      0,
      9007199254740991
    ]
  ],
  "stream": "stderr",
  "type": "match"
};
