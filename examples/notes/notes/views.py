import json

from django.db import connection
from django.http import HttpResponse, JsonResponse

from notes.models import Note


def health(request):
    connection.ensure_connection()
    return HttpResponse("ok")


def notes(request):
    if request.method == "POST":
        Note.objects.create(text=json.loads(request.body)["text"])
        return JsonResponse({}, status=201)
    found = [{"text": note.text} for note in Note.objects.order_by("id")]
    return JsonResponse({"notes": found})
