"""In place of DSPy: a good part of the standard library."""

import asyncio
import concurrent.futures
import csv
import ctypes
import decimal
import email.mime.multipart
import http.client
import http.server
import json
import logging.config
import multiprocessing
import os
import pydoc
import sqlite3
import ssl
import tarfile
import unittest.mock
import urllib.request
import xml.dom.minidom
import xmlrpc.client
import zipfile

IMPORTED = (
    asyncio,
    concurrent.futures,
    csv,
    ctypes,
    decimal,
    email.mime.multipart,
    http.client,
    http.server,
    json,
    logging.config,
    multiprocessing,
    pydoc,
    sqlite3,
    ssl,
    tarfile,
    unittest.mock,
    urllib.request,
    xml.dom.minidom,
    xmlrpc.client,
    zipfile,
)


def pid():
    return os.getpid()
